"""Who made an object, when, and under which UIDs: new ones, or the same ones whenever the same thing is made again."""

from __future__ import annotations

import datetime
import json
import secrets
import uuid
from dataclasses import dataclass

from msrf_monai import __version__
from msrf_monai.clinical.reading.dicom_info import OUR_MANUFACTURER
from msrf_monai.errors import ConfigError

__all__ = ["Identity", "Producer"]

_NAMESPACE = uuid.UUID("5f1d3d8e-6a0b-5c39-9f0e-2b8f7a4c1e65")
_LONGEST = 64


@dataclass(frozen=True)
class Producer:
    """The model that an object came from, as the object will name it."""

    model: str
    """Name of the bundle, such as ``"MSRF-Net polyp segmentation"``."""
    version: str
    """Version of the bundle."""
    model_digest: str = ""
    """SHA-256 of the weights; part of what makes repeatable UIDs differ between models."""
    options_digest: str = ""
    """Digest of what else changes a result (threshold, test-time augmentation, …)."""
    manufacturer: str = OUR_MANUFACTURER
    software_version: str = __version__

    def __post_init__(self) -> None:
        for name in ("model", "version", "manufacturer", "software_version"):
            text = getattr(self, name)
            if not (text.strip() and text.isascii() and text.isprintable() and "\\" not in text):
                raise ConfigError(f"{name} of the producer is printable ASCII text without backslash, got {text!r}")

    @property
    def short_model(self) -> str:
        """The name, cut to the 64 characters that DICOM gives it."""
        return self.model[:_LONGEST].strip()

    @property
    def serial_number(self) -> str:
        """What DICOM demands as the serial number of the device: the start of the weights' digest, or 0."""
        return self.model_digest[:16] or "0"

    @property
    def short_version(self) -> str:
        """The version, cut to 64 characters."""
        return self.version[:_LONGEST].strip()


@dataclass(frozen=True)
class Identity:
    """Gives UIDs, and the time that objects bear.

    A UID is a hash of the producer, the seed, what the object is (its role) and what it was made from and holds. With
    ``repeatable()`` the seed is empty and the time is the source's, so that the same input, model and options give the
    same bytes; with ``fresh()`` every run has UIDs of its own. Either way a UID never names two different contents.
    """

    producer: Producer
    seed: str = ""
    moment: datetime.datetime | None = None
    """When the content was made; None for the source's own date."""

    @classmethod
    def repeatable(cls, producer: Producer, moment: datetime.datetime | None = None) -> Identity:
        """Return an identity that gives the same UIDs and the same time for the same input.

        Args:
            producer: the model.
            moment: the time to write into every object; None for the date and time of each source.
        """
        return cls(producer, moment=moment)

    @classmethod
    def fresh(cls, producer: Producer) -> Identity:
        """Return an identity for one run: UIDs that no other run has, and the time of now."""
        return cls(producer, seed=secrets.token_hex(16), moment=datetime.datetime.now())

    def uid(self, role: str, *parts: str) -> str:
        """Return the UID of an object.

        Args:
            role: what it is, such as ``"seg"``.
            *parts: what it was made from and what it holds: UIDs and digests.

        Returns:
            A UID below 2.25, the arc for UIDs made of a UUID; at most 44 characters.
        """
        made_of = [self.seed, self.producer.model_digest, self.producer.options_digest, self.producer.model]
        name = json.dumps([*made_of, self.producer.version, role, *parts])
        return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
