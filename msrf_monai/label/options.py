"""What the server of MONAI Label is started with."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from msrf_monai.errors import ConfigError, DataError

__all__ = ["LabelOptions", "is_loopback", "is_remote"]


@dataclass(frozen=True)
class LabelOptions:
    """Images, bundles and where to listen."""

    studies: str
    """A folder of images, or the address of a DICOMweb service (``http://`` or ``https://``)."""
    bundles: tuple[Path, ...]
    """Folders of bundles; they are copied into the app's folder."""
    app_dir: Path = Path("label-app")
    """Folder of the app: copies of the bundles, fine-tuned weights, logs."""
    host: str = "127.0.0.1"
    port: int = 8000
    epistemic: str | None = None
    """Name of the bundle whose uncertainty ranks the images that have no label, or several with commas between them;
    None for no such ranking."""
    weights: tuple[tuple[str, Path], ...] = ()
    """Names of bundles and files of weights for them."""
    untrained: bool = False
    """Give bundles that have no weights random ones, to annotate from scratch."""
    threads: int | None = None
    """CPU threads inside one operation; None for one fewer than the CPUs that this process may use."""

    def check(self) -> None:
        """Refuse what the server would fail on later, or silently make up for.

        Raises:
            DataError: when the folder of images is missing.
            ConfigError: when the address holds a password, no bundle is given, a name is given twice or unknown, or
                the port is taken.
        """
        if is_remote(self.studies) and "@" in urlsplit(self.studies).netloc:
            raise ConfigError(
                "--studies holds a user's name or password, which logs and the list of processes would show; give the "
                "address without them, and set MONAI_LABEL_DICOMWEB_USERNAME and MONAI_LABEL_DICOMWEB_PASSWORD"
            )
        if not is_remote(self.studies) and not Path(self.studies).is_dir():
            raise DataError(
                f"there is no folder of images at {self.studies}; give one, or the address of a DICOMweb service "
                "that begins with http:// or https://"
            )
        names = [bundle.name for bundle in self.bundles]
        if not names:
            raise ConfigError("no bundle was found; give their folders, as in --bundles bundles/NAME")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ConfigError(f"two bundles are called {twice}; the server knows a model by this name, so rename one")
        for name in [*(name for name, _ in self.weights), *(self.epistemic.split(",") if self.epistemic else [])]:
            if name not in names:
                raise ConfigError(f"{name} is none of the bundles of this server; expected one of {', '.join(names)}")
        _check_port(self.host, self.port)


def is_remote(studies: str) -> bool:
    """Tell whether the images come from a DICOMweb service."""
    return studies.startswith(("http://", "https://"))


def is_loopback(host: str) -> bool:
    """Tell whether only this computer reaches a server that listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # as the server itself does, so that a port of a server that has just ended is not taken for a busy one
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} of {host} cannot be used ({error.strerror or error}); stop what listens there, or choose "
                "another one with --port"
            ) from error
