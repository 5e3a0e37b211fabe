"""NRRD files as arrays, as far as ITK writes them for masks: https://teem.sourceforge.net/nrrd/format.html."""

from __future__ import annotations

import gzip

import numpy as np

__all__ = ["read_nrrd"]

_TYPES = {"unsigned char": "u1", "uint8": "u1", "unsigned short": "u2", "short": "i2", "float": "f4", "double": "f8"}


def read_nrrd(content: bytes) -> tuple[np.ndarray, dict[str, str]]:
    """Return the pixels, the fastest axis last as in ``(H, W)``, and the fields of the header."""
    head, _, body = content.partition(b"\n\n")
    lines = [line for line in head.decode("ascii").splitlines()[1:] if not line.startswith("#")]
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    data = gzip.decompress(body) if fields["encoding"] in ("gzip", "gz") else body
    pixels = np.frombuffer(data, np.dtype(_TYPES[fields["type"]]).newbyteorder("<"))
    return pixels.reshape([int(size) for size in reversed(fields["sizes"].split())]), fields
