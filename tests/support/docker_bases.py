"""Images that stand in for those that Dockerfiles begin with: Debian of the same release, and with Python.

Images of others cannot be had everywhere; packages can. Python is the one that the tests run in, below ``/usr/local``
as in the official image. What pip is set up with on this computer holds there too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from support.docker_engine import Engine

__all__ = ["DEBIAN", "PYTHON", "make_bases"]

DEBIAN, PYTHON = "localhost/stand-in-debian", "localhost/stand-in-python"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
_LIBRARIES = (
    "libbz2-1.0 libffi8 libgdbm6 liblzma5 libncursesw6 libnsl2 libreadline8 libsqlite3-0 libssl3 libuuid1 zlib1g"
)
_BY_THEIR_SHORT_NAMES = f"ldconfig && ln -s {_VERSION} /usr/local/bin/python3 && ln -s python3 /usr/local/bin/python"
# python -m pip is the same program, and the names in bin are those of the official image
_WITH_PIP = "python -m ensurepip && ln -s pip3 /usr/local/bin/pip"


def make_bases(engine: Engine) -> list[str]:
    """Make both images; return the options of a build that let pip see the folders that it is set up with."""
    volumes = [word for folder in _folders_of_pip() for word in ("--volume", f"{folder}:{folder}:ro")]
    if engine.run("image", "exists", PYTHON, check=False).returncode == 0:
        return volumes
    context = engine.folder / "context"
    context.mkdir()
    _pack_debian(engine.folder / "debian", context / "debian.tar")
    _pack_python(context / "python.tar")
    (context / "pip.conf").write_text("\n".join(["[global]", *_settings_of_pip()]) + "\n")
    shutil.copy(_AUTHORITIES, context)
    debian = ["FROM scratch", "ADD debian.tar /", f"COPY {_AUTHORITIES.name} {_AUTHORITIES.parent}/"]
    python = [f"FROM {DEBIAN}", "COPY pip.conf /etc/", "ADD python.tar /usr/local/"]
    python += [f"RUN apt-get update && apt-get install -y --no-install-recommends {_LIBRARIES}"]
    python += [f"RUN {_BY_THEIR_SHORT_NAMES} && {_WITH_PIP}"]
    for name, lines in ((DEBIAN, debian), (PYTHON, python)):
        (context / "Dockerfile").write_text("\n".join(lines) + "\n")
        engine.build(context / "Dockerfile", name, *volumes, context=context)
    shutil.rmtree(context)
    return volumes


def _pack_debian(root: Path, archive: Path) -> None:
    words = ["--variant=minbase", "--include=ca-certificates", "bookworm", str(root)]
    subprocess.run(["nice", "-n", "19", "debootstrap", *words], check=True, capture_output=True, timeout=900)
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True, timeout=300)
    shutil.rmtree(root)


def _pack_python(archive: Path) -> None:
    """Pack the Python of the tests without what was installed into it."""
    root = Path(sys.base_prefix)
    parts = [f"bin/{_VERSION}", f"lib/{_VERSION}", f"include/{_VERSION}"]
    parts += [str(path.relative_to(root)) for path in (root / "lib").glob("libpython3*.so*")]
    left_out = [f"--exclude=lib/{_VERSION}/{name}/*" for name in ("site-packages", "dist-packages", "test")]
    words = ["--owner=0", "--group=0", "--exclude=__pycache__", *left_out, "-cf", archive, *parts]
    subprocess.run(["tar", "-C", root, *words], check=True, timeout=300)


def _settings_of_pip() -> list[str]:
    done = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    found = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", done.stdout, re.MULTILINE))
    return [f"{name} = {value}" for name, value in found.items() if name not in ("constraint", "user")]


def _folders_of_pip() -> list[str]:
    words = (word.removeprefix("file://") for line in _settings_of_pip() for word in line.split(" = ", 1)[1].split())
    found = {path for path in map(Path, words) if path.is_absolute() and path.is_dir()}
    # an index names files of the folder above it
    return sorted({str(path.parent if path.name == "simple" else path) for path in found})
