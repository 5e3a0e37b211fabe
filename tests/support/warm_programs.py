"""A PATH on which ``python -m …``, ``torchrun`` and ``msrf-monai`` start in hundredths of a second: see the server."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
STARTS_WITHIN_S = 300.0


@functools.cache
def warm_path() -> str:
    """Start the server once in this process, and return the PATH; the server ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    meeting = folder / "socket"
    for program in ("python", "torchrun", "msrf-monai"):
        script = folder / program
        words = f'"{sys.executable}" -IS "{HERE / "warm_client.py"}" {program} "{meeting}"'
        script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        script.chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "MPLBACKEND": "Agg"}
    server = subprocess.Popen([sys.executable, HERE / "warm_server.py", meeting], env=environment)
    atexit.register(_end, server, folder)
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not meeting.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the process that forks programs did not start: exit code {server.poll()}")
        time.sleep(0.05)
    return f"{folder}:{os.environ['PATH']}"


def warm_program(name: str) -> str:
    """Return the path of ``python``, ``torchrun`` or ``msrf-monai`` that starts at once."""
    return str(Path(warm_path().partition(":")[0]) / name)


def cold_path() -> str:
    """Return the PATH of the environment that the tests run in, where each program is a new process."""
    return f"{BIN}:{os.environ['PATH']}"


def _end(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.terminate()
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)
