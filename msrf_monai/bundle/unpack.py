"""Unpack a bundle's zip without letting it out of its folder: whole, or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from msrf_monai.errors import DataError, StorageError
from msrf_monai.files import storing

__all__ = ["UnpackLimits", "unpack_bundle"]

_CHUNK = 1 << 20
_SMALL = 64 << 20
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{name}{number}" for name in ("com", "lpt") for number in range(1, 10))}
)


@dataclass(frozen=True)
class UnpackLimits:
    """How much a zip may hold."""

    files: int = 10_000
    """Entries, folders included."""
    total_bytes: int = 8 << 30
    """Of all files together, unpacked."""
    file_bytes: int = 4 << 30
    """Of one file, unpacked."""
    ratio: int = 200
    """Unpacked over packed size of one file above 1 MiB; text and weights stay below 20, a zip bomb is at 1000."""
    path_length: int = 240
    """Characters of one name with its folders."""
    depth: int = 16
    """Folders within folders."""


DEFAULT_LIMITS = UnpackLimits()


def unpack_bundle(
    archive: str | os.PathLike[str], folder: str | os.PathLike[str], *, limits: UnpackLimits = DEFAULT_LIMITS
) -> Path:
    """Unpack a bundle's zip into a new folder below another one.

    Every name is checked before anything is written. The files go to a temporary folder beside their place, and that
    takes its name when all are there, so that a zip that is refused or damaged leaves nothing.

    Args:
        archive: the zip; all its entries lie in one folder, the bundle.
        folder: where the bundle's folder goes; made when it is missing.
        limits: how much the zip may hold.

    Returns:
        The bundle's folder.

    Raises:
        DataError: when the zip is damaged, holds a name that leads out of its folder, a link, two names that are one
            where case does not count, or more than the limits; and when the bundle's folder is there already.
        StorageError: when the files cannot be written.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        with zipfile.ZipFile(archive) as opened:
            name, entries = _checked(opened, archive, limits)
            target = folder / name
            if os.path.lexists(target):
                raise DataError(f"{target} is there already; remove it or choose another folder")
            with storing(target):
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=f".{name[:60]}.", suffix=".part", dir=folder) as temporary:
                    _extract(opened, archive, entries, Path(temporary), limits)
                    # a folder that came meanwhile is not empty, and then this fails and leaves it alone
                    (Path(temporary) / name).rename(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(f"{archive} is no zip that can be read ({_reason(error)}); fetch it again") from error
    except StorageError:
        raise
    except OSError as error:
        raise DataError(f"{archive} cannot be read ({error.strerror}); give the path of a bundle's zip") from error
    return target


def _checked(
    opened: zipfile.ZipFile, archive: Path, limits: UnpackLimits
) -> tuple[str, list[tuple[zipfile.ZipInfo, PurePosixPath]]]:
    """Return the top folder and the entries with their paths, when all of them are harmless."""
    infos = opened.infolist()
    if not infos:
        raise DataError(f"{archive} is empty; expected one folder, the bundle")
    if len(infos) > limits.files:
        raise DataError(f"{archive} holds {len(infos)} entries; {limits.files} are the most that are unpacked")
    total = sum(info.file_size for info in infos)
    # entries can share their bytes, so the whole is compared with the file itself too
    most = min(limits.total_bytes, max(limits.ratio * archive.stat().st_size, _SMALL))
    if total > most:
        raise DataError(f"{archive} unpacks to {total} bytes; {most} are the most for a file of its size")
    entries = [(info, _path(info, archive, limits)) for info in infos]
    _check_collisions(entries, archive)
    tops = {path.parts[0] for _, path in entries}
    if len(tops) != 1 or any(len(path.parts) == 1 and not info.is_dir() for info, path in entries):
        raise DataError(f"{archive} must hold one folder, the bundle, and everything in it")
    return tops.pop(), entries


def _path(info: zipfile.ZipInfo, archive: Path, limits: UnpackLimits) -> PurePosixPath:
    """Return an entry's path when its name is plain and it is a file or a folder within the limits."""
    name = info.filename
    # zipfile cuts a name at a zero byte and turns separators of other systems; what stands in the file counts
    raw = info.orig_filename
    path = PurePosixPath(name)
    problem = _name_problem(raw, path, limits)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if not problem and kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "is a link or a device"
    if not problem and info.flag_bits & 0x1:
        problem = "is encrypted"
    if not problem and info.file_size > limits.file_bytes:
        problem = f"has {info.file_size} bytes, over {limits.file_bytes}"
    if not problem and info.file_size > _CHUNK and info.file_size > limits.ratio * max(info.compress_size, 1):
        problem = f"unpacks to over {limits.ratio} times its size, as a zip bomb does"
    if problem:
        raise DataError(f"{archive}: the entry {raw[:120]!a} {problem}; nothing was unpacked")
    return path


def _name_problem(raw: str, path: PurePosixPath, limits: UnpackLimits) -> str:
    if "\\" in raw or "\0" in raw or ":" in raw or any(unicodedata.category(each)[0] == "C" for each in raw):
        return "has a character in its name that systems read differently"
    if path.is_absolute() or PureWindowsPath(raw).is_absolute() or raw.startswith("~"):
        return "has an absolute name"
    parts = raw.rstrip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "has a name that leads out of its folder"
    if len(raw) > limits.path_length or len(parts) > limits.depth:
        return "has a name that is too long or too deep"
    if any(part.endswith((".", " ")) or part.split(".")[0].lower() in _RESERVED for part in parts):
        return "has a name that some systems cannot hold"
    return ""


def _check_collisions(entries: list[tuple[zipfile.ZipInfo, PurePosixPath]], archive: Path) -> None:
    """Refuse names that are one file where case or Unicode's forms do not count, and a file that is also a folder."""
    seen: dict[str, bool] = {}
    for info, path in entries:
        key = _key(path)
        if key in seen and not (seen[key] and info.is_dir()):
            raise DataError(
                f"{archive}: {str(path)!a} stands there twice, or differs in case only; nothing was unpacked"
            )
        seen[key] = info.is_dir()
    spellings: dict[str, str] = {}
    for _, path in entries:
        for parent in (*path.parents, path):
            key = _key(parent)
            if seen.get(key) is False and parent != path:
                raise DataError(f"{archive}: {str(parent)!a} is a file and a folder; nothing was unpacked")
            if spellings.setdefault(key, str(parent)) != str(parent):
                raise DataError(
                    f"{archive}: {str(parent)!a} stands there twice, differing in case; nothing was unpacked"
                )


def _key(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFKC", str(path)).casefold()


def _extract(
    opened: zipfile.ZipFile,
    archive: Path,
    entries: list[tuple[zipfile.ZipInfo, PurePosixPath]],
    folder: Path,
    limits: UnpackLimits,
) -> None:
    left = limits.total_bytes
    for info, path in entries:
        target = folder.joinpath(*path.parts)
        if info.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(info) as source, target.open("xb") as sink:
            # what the directory of the zip says of sizes is a claim: count what comes
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise DataError(f"{archive} unpacks to over {limits.total_bytes} bytes; nothing was unpacked")
                sink.write(chunk)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
