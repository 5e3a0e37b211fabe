"""The real MONAI Label server, started by our own command on loopback and stopped again; and its environment."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import requests

from msrf_monai.errors import MsrfError
from msrf_monai.label.environment import VARIABLE, Environment, environment_digest, make_environment
from support.orthanc import free_port
from support.real_data import REPOSITORY

__all__ = ["NO_NETWORK", "REQUIRED", "LabelServer", "label_environment", "label_variables", "run_in_label_environment"]

REQUIRED = "MSRF_LABEL_REQUIRED"
"""With ``1`` in this environment variable a missing or broken environment is a failure, and else a skip."""

NO_NETWORK = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}
"""Environment variables with which every look-up outside this computer fails at once."""

_PATIENCE = 180.0


def label_environment() -> Environment:
    """Return the environment of MONAI Label: that of MSRF_LABEL_ENV, or the cached one, made when it is missing."""
    found = _find(os.environ.get(VARIABLE))
    if isinstance(found, Environment):
        return found
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(found)
    pytest.skip(found)


@lru_cache(maxsize=4)
def _find(given: str | None) -> Environment | str:
    """Return the environment, or why there is none; one that cannot be made is not tried again."""
    if given:
        environment = Environment(given)
        if not environment.python.exists():
            return f"{VARIABLE} names {given}, which holds no Python; see --make-environment"
        return environment
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msrf-monai"
    folder = cache / f"label-{environment_digest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may be making it
        try:
            return make_environment(folder)
        except (MsrfError, OSError) as error:
            return f"MONAI Label's environment cannot be made here: {error}"


def label_variables(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return environment variables for a process there: this checkout's package, one thread."""
    kept = {key: value for key, value in os.environ.items() if key not in (VARIABLE, "PYTHONPATH")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **(more or {})}


def run_in_label_environment(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run Python there and return what it said."""
    command = [str(label_environment().python), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env=label_variables(), cwd=REPOSITORY, check=False
    )


class LabelServer:
    """``msrf-monai label`` from start to stop.

    Args:
        studies: folder of images or address of a DICOMweb service.
        bundles: folders of bundles.
        app_dir: the app's folder; its parent gets the log.
        options: further options of the command.
        variables: further environment variables.
        program: words of the command up to ``label``; default: those of MONAI Label's environment.
    """

    def __init__(
        self,
        studies: str | Path,
        bundles: Sequence[Path],
        app_dir: Path,
        *options: str,
        variables: Mapping[str, str] | None = None,
        program: Sequence[str | Path] = (),
    ) -> None:
        self.port = free_port()
        self.app_dir = app_dir
        self.log = app_dir.with_suffix(".log")
        started = program or (label_environment().python, "-m", "msrf_monai.cli.main", "label")
        self._command = [*map(str, started)]
        self._command += ["--studies", str(studies), "--bundles", ",".join(map(str, bundles))]
        self._command += ["--app-dir", str(app_dir), "--port", str(self.port), *options]
        self._variables = label_variables(variables)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it and wait until it has answered ``/info/``."""
        return self._start(self._command)

    def start_plainly(self) -> Self:
        """Start it by the line of MONAI Label's own that ``--dry-run`` prints, as a shell takes it."""
        command = [*self._command, "--dry-run"]
        said = subprocess.run(
            command, capture_output=True, text=True, env=self._variables, cwd=self.log.parent, check=True
        )
        return self._start(["/bin/sh", "-c", f"exec {said.stdout}"])

    def _start(self, command: Sequence[str]) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._variables,
                cwd=self.log.parent,
            )
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until and self._process.poll() is None:
            try:
                requests.get(f"{self.url}/info/", timeout=_PATIENCE).raise_for_status()
                return self
            except requests.ConnectionError:
                time.sleep(0.2)
            except requests.HTTPError:
                break
        said = self.said()
        self.stop()
        raise RuntimeError(f"the server did not start; its log ends with:\n{said[-4000:]}")

    def stop(self) -> None:
        """End it and wait for that."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(20)
            self._process = None

    def said(self) -> str:
        """Return its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def get(self, path: str, **options: Any) -> requests.Response:
        """Ask, and return the answer whatever its status."""
        return requests.get(self.url + path, timeout=_PATIENCE, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        """Send a request such as ``/infer/NAME?image=ID`` with ``files=`` or ``data=``; return the answer."""
        return requests.post(self.url + path, timeout=_PATIENCE, **options)

    def put(self, path: str, **options: Any) -> requests.Response:
        """Send a label or an image; return the answer."""
        return requests.put(self.url + path, timeout=_PATIENCE, **options)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is not None:
            sys.stdout.write(self.said()[-8000:])
