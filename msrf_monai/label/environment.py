"""The Python environment that MONAI Label needs: made by one command, with the versions that were tested.

MONAI Label 0.8.5 needs NumPy below 2 and pydicom below 3, so it cannot share an environment with the rest. Only the
standard library is used here, so that ``python -m msrf_monai.label.environment FOLDER`` also works where nothing is
installed yet, as when a container is built.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from msrf_monai import __version__
from msrf_monai.errors import EngineError, InputError

__all__ = ["VARIABLE", "Environment", "environment_digest", "main", "make_environment", "runs_here"]

VARIABLE = "MSRF_LABEL_ENV"
"""The environment variable that names the folder of an environment."""

_FILES = Path(__file__).with_name("installed")
_CONSTRAINTS = _FILES / "constraints.txt"
_SHIM = ("_torchvision_on_cpu.py", "_torchvision_on_cpu.pth")
_MARK = "msrf-monai-label.json"
_PYTHONS = ((3, 11, 5), (3, 13))
Run = Callable[[Sequence[str], Mapping[str, str]], None]


class Environment:
    """An environment of MONAI Label on the disk.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser().absolute()

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def dicom3(self) -> Path:
        """The folder of pydicom 3 and highdicom, which only the writer of segmentations sees."""
        return self.folder / "dicom3"

    @property
    def is_current(self) -> bool:
        """Whether it was made completely, from the files that this version of the package has."""
        try:
            mark = json.loads((self.folder / _MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(mark, dict) and mark.get("digest") == environment_digest() and self.python.exists()

    def mark(self) -> None:
        """Note that it is complete."""
        content = {"msrf-monai": __version__, "digest": environment_digest()}
        (self.folder / _MARK).write_text(json.dumps(content) + "\n", encoding="utf-8")


def environment_digest() -> str:
    """Return a digest of everything that decides what an environment holds, apart from this package."""
    whole = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for path in sorted(path for path in _FILES.iterdir() if path.is_file()):
        whole.update(path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def make_environment(
    folder: str | os.PathLike[str], *, torch_index: str | None = None, run: Run | None = None
) -> Environment:
    """Make an environment with MONAI Label, this package and the tested versions of everything.

    Args:
        folder: where to; one that is complete and current is left as it is.
        torch_index: address of the package index that PyTorch comes from; None for pip's own.
        run: starts one command with the environment variables given; default: as a process whose output is shown.

    Returns:
        The environment, complete.

    Raises:
        InputError: when the tested versions are not made for this Python, or the folder holds other things.
        EngineError: when a step fails; what pip said stands above.
    """
    environment = Environment(folder)
    if environment.is_current:
        return environment
    _check(environment.folder)
    run = run or _run
    python = str(environment.python)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "-q"]
    plain = {key: value for key, value in os.environ.items() if key not in ("PIP_CONSTRAINT", "PYTHONPATH")}
    # as a variable it also holds where pip builds sam2, which would fetch another PyTorch there; as an address it may
    # contain spaces
    bound = {**plain, "PIP_CONSTRAINT": _CONSTRAINTS.as_uri(), "SAM2_BUILD_CUDA": "0"}
    run([sys.executable, "-m", "venv", "--clear", str(environment.folder)], plain)
    # first and alone: whatever asks for PyTorch later is content with this build
    run([*pip, *(["--index-url", torch_index] if torch_index else []), _pin("torch")], plain)
    run([*pip, "-r", str(_FILES / "requirements.txt")], bound)
    run([*pip, "--no-deps", "--target", str(environment.dicom3), "-r", str(_FILES / "requirements-dicom3.txt")], plain)
    run([*pip, "--no-deps", *_this_package()], bound)
    _install_shim(environment)
    environment.mark()
    return environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Make an environment from the command line: ``python -m msrf_monai.label.environment FOLDER``."""
    parser = argparse.ArgumentParser(prog="python -m msrf_monai.label.environment", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="where to make it")
    parser.add_argument("--torch-index", help="address of the package index that PyTorch comes from")
    given = parser.parse_args(arguments)
    try:
        made = make_environment(given.folder, torch_index=given.torch_index or None)
    except (InputError, EngineError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{made.python.with_name('msrf-monai')} label --help\n")
    return 0


def runs_here() -> bool:
    """Return whether the tested versions of MONAI Label's libraries run on this Python."""
    least, above = _PYTHONS
    return least <= sys.version_info[:3] < above


def _check(folder: Path) -> None:
    least, above = _PYTHONS
    if not runs_here():
        here, first, last = (".".join(map(str, version)) for version in (sys.version_info[:3], least, above))
        raise InputError(
            f"this is Python {here}, and MONAI Label's environment needs {first} or later, below {last}; run this "
            "command with such a Python"
        )
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds other things; name a new folder for MONAI Label's environment")


def _pin(name: str) -> str:
    lines = _CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def _this_package() -> list[str]:
    """Return what pip installs this package from: the checkout that it runs from, or the same version."""
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        return ["-e", str(checkout)]
    try:
        given = json.loads(metadata.distribution("msrf-monai").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        given = {}
    return [str(given.get("url") or f"msrf-monai=={__version__}")]


def _install_shim(environment: Environment) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    places = sysconfig.get_path("purelib", "posix_prefix", vars={"base": str(environment.folder)})
    target = Path(places or environment.folder / "lib" / version / "site-packages")
    for name in _SHIM:
        shutil.copyfile(_FILES / name, target / name)


def _run(command: Sequence[str], variables: Mapping[str, str]) -> None:
    sys.stderr.write(f"{' '.join(command)}\n")
    status = subprocess.run(list(command), env=dict(variables), check=False).returncode  # noqa: S603 - our own words
    if status:
        raise EngineError(
            f"a step of making MONAI Label's environment ended with status {status}: {' '.join(command)}; "
            "what it said stands above. Mend it and run the same command again"
        )


if __name__ == "__main__":
    raise SystemExit(main())
