"""Ways to damage a file, each of them the same for the same seed and number."""

from __future__ import annotations

import gzip
import random
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress

__all__ = ["mutated"]

_HEAD, _META = 1024, 350
_PIXELS = b"\xe0\x7f\x10\x00"
_NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_TYPES = (
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_GROUPS = rb"[\x02\x08\x10\x18\x20\x22\x28\x40\x48\x54\x62\xe0]"
_ELEMENT = re.compile(rb"(?s)(?=" + _GROUPS + rb"...(?:" + b"|".join(_TYPES) + rb"))")
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")
_PNG = b"\x89PNG\r\n\x1a\n"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_MOST = 200_000
"""Bytes that a damaged file may have, so that repeating parts does not make all of them long."""


def mutated(samples: Mapping[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Damage one of the samples.

    Args:
        samples: sound and unsound files by name.
        seed: of the whole run.
        number: of this input.

    Returns:
        The name of the sample, and one to four kinds of damage done to it; inside a gzip or deflate stream or with the
        checksums of a PNG put right in most cases, for damage to get beyond the first check.
    """
    chance = random.Random(f"{seed} {number}")
    names = sorted(samples)
    name = names[number % len(names)]
    data = samples[name]
    if chance.random() < 0.7:
        for inside in (_inside_gzip, _inside_deflate, _inside_metaimage):
            changed = inside(data, chance, samples)
            if changed is not None:
                return name, changed
    data = _damaged(data, chance, samples)
    return name, _with_checksums(data) if data.startswith(_PNG) and chance.random() < 0.8 else data


def _damaged(data: bytes, chance: random.Random, samples: Mapping[str, bytes]) -> bytes:
    # a third of the time all of it, else what lies behind the file's own header, or DICOM's pixels alone
    kept = chance.choice((0, min(_META, len(data) // 2), max(data.find(_PIXELS), 0)))
    changed = bytearray(data[kept:])
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        if not changed:
            break
        kind = chance.choice(_KINDS)
        if kind is _spliced:
            other = samples[chance.choice(sorted(samples))]
            changed[_place(changed, chance) :] = other[_place(other, chance) :]
        else:
            kind(changed, chance)
        del changed[_MOST:]
    return data[:kept] + bytes(changed)


def _place(data: bytes | bytearray, chance: random.Random) -> int:
    """Return a position, half of the time in the header."""
    return chance.randrange(min(len(data), _HEAD) if chance.random() < 0.5 else len(data))


def _flipped(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _overwritten(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance)
    length = chance.choice((1, 1, 2, 4, 16))
    data[start : start + length] = bytes([chance.choice((0, 0xFF, 0x7F, 0x80, chance.randrange(256)))]) * length


def _numbered(data: bytearray, chance: random.Random) -> None:
    """Write a number of 2, 4 or 8 bytes, in either order, near or at a place where one may be."""
    code = chance.choice("HIQ") if chance.random() < 0.9 else chance.choice("fd")
    size = struct.calcsize("<" + code)
    start = _place(data, chance) // 2 * 2
    number: float = _number(chance, size)
    if code in "fd":
        number = chance.choice((0.0, -1.0, 1e300, float("nan"), float("inf")))
    with suppress(struct.error, OverflowError):
        data[start : start + size] = struct.pack(chance.choice("<>") + code, number)


def _number(chance: random.Random, size: int) -> int:
    return chance.choice(_NUMBERS) % (1 << 8 * size)


def _element_changed(data: bytearray, chance: random.Random) -> None:
    """Change the tag, type, length or value of a DICOM element with an explicit type, or swap two elements' tags."""
    found = [match.start() for match in _ELEMENT.finditer(bytes(data[: 8 * _HEAD]))]
    if not found:
        return _numbered(data, chance)
    at = chance.choice(found)
    is_long = bytes(data[at + 4 : at + 6]) in _LONG
    length_at, length_size = (at + 8, 4) if is_long else (at + 6, 2)
    what = chance.randrange(5)
    if what == 0:
        other = chance.choice(found)
        data[at : at + 4], data[other : other + 4] = data[other : other + 4], data[at : at + 4]
    elif what == 1:
        data[at + 4 : at + 6] = chance.choice(_TYPES)
    elif what == 2:
        length = int.from_bytes(data[length_at : length_at + length_size], "little")
        near = max(length + chance.choice((-2, -1, 1, 2, 1000)), 0)
        length = near if chance.random() < 0.5 else chance.choice(_NUMBERS)
        data[length_at : length_at + length_size] = (length % (1 << 8 * length_size)).to_bytes(length_size, "little")
    else:
        start = length_at + length_size
        data[start : start + 2] = _number(chance, 2).to_bytes(2, "little")
    return None


def _text_changed(data: bytearray, chance: random.Random) -> None:
    """Put another number, or something that is none, in the place of a written one."""
    found = list(re.finditer(rb"\d+(\.\d+)?", bytes(data[: 4 * _HEAD])))
    if not found:
        return
    match = chance.choice(found)
    data[match.start() : match.end()] = chance.choice(
        (b"0", b"-1", b"1e999", b"nan", b"99999999999999999999", b"", b"65536", b"3", b"../x", b"0.5", b"\xff")
    )


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _removed(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance)
    del data[start : start + chance.choice((1, 2, 8, 100, 1000))]


def _repeated(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance)
    block = data[start : start + chance.choice((1, 2, 8, 132, 1000, 20000))] * chance.choice((1, 1, 2, 50))
    at = start if chance.random() < 0.5 else _place(data, chance)
    data[at:at] = block


def _swapped(data: bytearray, chance: random.Random) -> None:
    size = chance.choice((2, 4, 8, 100))
    one, other = sorted((_place(data, chance), _place(data, chance)))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


def _spliced(data: bytearray, chance: random.Random) -> None:
    """Stand for the end of another sample in the place of this one's."""


_KINDS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flipped, _overwritten, _numbered, _element_changed, _element_changed, _text_changed),
    *(_cut, _removed, _repeated, _swapped, _spliced),
)


def _inside_gzip(data: bytes, chance: random.Random, samples: Mapping[str, bytes]) -> bytes | None:
    if not data.startswith(b"\x1f\x8b"):
        return None
    with suppress(OSError, EOFError, zlib.error):
        return gzip.compress(_damaged(gzip.decompress(data), chance, samples), 1, mtime=0)
    return None


def _inside_deflate(data: bytes, chance: random.Random, samples: Mapping[str, bytes]) -> bytes | None:
    """Damage the data set of a deflated DICOM file, which begins behind the group of file meta information."""
    if _DEFLATED not in data[:_HEAD]:
        return None
    start = 144 + int.from_bytes(data[140:144], "little")
    with suppress(zlib.error):
        inside = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], 10 * _MOST)
        stream = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
        return data[:start] + stream.compress(_damaged(inside, chance, samples)) + stream.flush()
    return None


def _inside_metaimage(data: bytes, chance: random.Random, samples: Mapping[str, bytes]) -> bytes | None:
    """Damage the text of a MetaImage header alone, whose voxels stay as they are."""
    if not data.startswith(b"ObjectType"):
        return None
    end = data.index(b"\n", data.index(b"ElementDataFile")) + 1
    changed = bytearray(data[:end])
    for _ in range(chance.choice((1, 1, 2))):
        chance.choice((_text_changed, _flipped, _swapped))(changed, chance)
    return bytes(changed) + data[end:]


def _with_checksums(data: bytes) -> bytes:
    """Put right the checksum of every whole chunk of a PNG."""
    changed, at = bytearray(data), len(_PNG)
    while at + 12 <= len(changed):
        end = at + 8 + int.from_bytes(changed[at : at + 4], "big")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = zlib.crc32(changed[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(changed)
