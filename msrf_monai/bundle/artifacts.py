"""What a file of weights is, judged by its content, and what a pickle in it would import; nothing is loaded."""

from __future__ import annotations

import json
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

__all__ = ["Artifact", "Kind", "examine_artifact", "extra_files", "pickle_imports"]

Kind = Literal["PyTorch pickle", "bare pickle", "TorchScript", "torch.export", "safetensors", "ONNX", "zip", "unknown"]

MOST_PICKLE_BYTES = 64 << 20
_MOST_EXTRA_BYTES = 4 << 20
_MOST_ENTRIES = 100_000
_MADE_UP = "a name that is put together while loading"
# What torch itself loads with weights_only=True.
_HARMLESS = frozenset(
    {"collections.OrderedDict", "torch.Size", "torch.device", "torch.serialization._get_layout", "builtins.set"}
    | {f"torch._utils._rebuild_{name}" for name in ("parameter", "parameter_with_state", "tensor", "tensor_v2")}
    | {f"torch._tensor._rebuild_{name}" for name in ("from_type_v2",)}
    | {
        f"torch.{name}Storage"
        for name in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
    }
    | {"torch.storage.UntypedStorage", "torch.storage.TypedStorage", "torch.nn.parameter.Parameter"}
    | {
        f"torch.{name}"
        for name in ("bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "uint8")
    }
)


@dataclass(frozen=True)
class Artifact:
    """A file of weights or of an exported network."""

    kind: Kind
    imports: tuple[str, ...] = ()
    """What a pickle in it names, as ``module.name``; loading it without ``weights_only`` imports and may call these."""
    problem: str = ""
    """Why the file could not be read to its end; empty when it was."""

    @property
    def unsafe(self) -> tuple[str, ...]:
        """What it imports beyond tensors, which ``weights_only=True`` would refuse."""
        if self.kind == "TorchScript":  # its pickles are read by TorchScript's own reader, which imports nothing
            return ()
        return tuple(name for name in self.imports if name not in _HARMLESS)


def examine_artifact(path: Path) -> Artifact:
    """Say what a file is, whatever it is called, without loading it."""
    try:
        with path.open("rb") as handle:
            head = handle.read(16)
        if zipfile.is_zipfile(path):
            return _archive(path)
        if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return _bare_pickle(path)
        if head[8:9] == b"{" and _is_safetensors(path):
            return Artifact("safetensors")
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError) as error:
        return Artifact("unknown", problem=f"cannot be read ({type(error).__name__})")
    # the first field of ONNX's outermost message is its version, a small number
    return Artifact("ONNX") if head[:1] == b"\x08" and 0 < head[1] < 32 else Artifact("unknown")


def extra_files(path: Path) -> dict[str, str]:
    """Return the extra files of a TorchScript archive, where MONAI puts configs, as texts.

    Raises:
        ValueError: when one of them is too large or no text.
    """
    if not zipfile.is_zipfile(path):
        return {}
    found = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if "/extra/" not in f"/{info.filename}" or info.is_dir():
                continue
            if info.file_size > _MOST_EXTRA_BYTES:
                raise ValueError(f"{info.filename} has {info.file_size} bytes")
            found[info.filename] = archive.read(info).decode("utf-8")
    return found


def pickle_imports(handle: IO[bytes]) -> tuple[str, ...]:
    """Return what a stream of pickles names to be imported, read opcode by opcode and never executed.

    Raises:
        ValueError: when the stream is no pickle.
    """
    found: dict[str, None] = {}
    while True:
        start = handle.tell()
        if not handle.read(1):
            break
        handle.seek(start)
        try:
            _one_pickle(handle, found)
        except ValueError:
            if not found and start == 0:
                raise
            break  # torch's old files have raw storages behind their pickles
    return tuple(found)


def _one_pickle(handle: IO[bytes], found: dict[str, None]) -> None:
    texts: list[str] = []  # pushed in a row, just before this opcode
    memo: list[str | None] = []
    numbered: dict[int, str | None] = {}
    for opcode, argument, _ in pickletools.genops(handle):
        name = opcode.name
        if name == "MEMOIZE":
            memo.append(texts[-1] if texts else None)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            numbered[int(str(argument))] = texts[-1] if texts else None
        elif "UNICODE" in name or name.endswith("STRING"):
            texts.append(str(argument))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            place = int(str(argument))
            text = numbered.get(place, memo[place] if place < len(memo) else None)
            texts = [*texts, text] if text is not None else []
        elif name != "FRAME":
            _note_import(name, argument, texts, found)
            texts = []


def _note_import(name: str, argument: object, texts: list[str], found: dict[str, None]) -> None:
    if name in ("GLOBAL", "INST"):
        found[".".join(str(argument).split(" ", 1))] = None
    elif name == "STACK_GLOBAL":
        # a name that does not stand there in two texts is put together while loading, as only an attack has it
        found[".".join(texts[-2:]) if len(texts) >= 2 else _MADE_UP] = None
    elif name.startswith("EXT"):
        found["the registry of copyreg"] = None


def _archive(path: Path) -> Artifact:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()[:_MOST_ENTRIES]
        names = [info.filename for info in infos]
        imports: dict[str, None] = {}
        problem = ""
        for info in infos:
            if not info.filename.endswith((".pkl", ".pickle")):
                continue
            if info.file_size > MOST_PICKLE_BYTES:
                problem = f"{info.filename} has {info.file_size} bytes and was not read"
                continue
            with archive.open(info) as handle:
                imports |= dict.fromkeys(pickle_imports(handle))
    return Artifact(_kind_of(names), tuple(imports), problem)


def _kind_of(names: list[str]) -> Kind:
    if any(name.endswith("archive_format") for name in names):
        return "torch.export"
    if any(name.endswith("/constants.pkl") for name in names):  # by this torch.load tells them apart
        return "TorchScript"
    return "PyTorch pickle" if any(name.endswith("data.pkl") for name in names) else "zip"


def _bare_pickle(path: Path) -> Artifact:
    if path.stat().st_size > MOST_PICKLE_BYTES:
        return Artifact("bare pickle", problem=f"has {path.stat().st_size} bytes and was not read")
    with path.open("rb") as handle:
        return Artifact("bare pickle", pickle_imports(handle))


def _is_safetensors(path: Path) -> bool:
    """Say whether a file begins with the length of a JSON header and that header, as safetensors do."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= min(size - 8, MOST_PICKLE_BYTES):
            return False
        try:
            header = json.loads(handle.read(length))
        except (ValueError, RecursionError):
            return False
    return isinstance(header, dict) and all(
        key == "__metadata__" or (isinstance(each, dict) and "dtype" in each) for key, each in header.items()
    )
