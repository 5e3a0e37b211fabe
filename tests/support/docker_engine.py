"""Podman, which builds Dockerfiles and runs containers as Docker does, without a service and without images of others.

Its store is a folder of its own. Containers run in a network of their own, from which nothing outside this computer is
reached and in which every port is free; only what is built sees the network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from support.real_data import REPOSITORY

__all__ = ["KEPT", "Engine", "wait_until"]

KEPT = "MSRF_CONTAINER_STORE"
"""With a folder in this environment variable images are kept there, and only what has changed is built again."""

_NEEDED = ("podman", "debootstrap", "unshare", "nsenter", "ip", "curl", "storescu")
_PACKAGES = "podman crun netavark aardvark-dns conmon catatonit iptables debootstrap dcmtk curl"
# what a container may open and start must not be more than this process may, and nobody counts what it uses
_SETTINGS = """[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
cgroups = "disabled"
[network]
network_backend = "netavark"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# crun takes only the old or the new hierarchy of control groups
_NAMESPACE = "umount /sys/fs/cgroup/unified 2>/dev/null; ip link set lo up && echo ready && exec sleep infinity"


class Engine:
    """Podman with a store of its own.

    Args:
        folder: for its store, unless the environment variable ``KEPT`` names another.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in _NEEDED if shutil.which(name) is None]
        if missing or os.geteuid() != 0:
            pytest.skip(f"containers are built and run by root with Podman: apt-get install {_PACKAGES}")
        self._is_kept = KEPT in os.environ
        self.folder = Path(os.environ.get(KEPT, folder))
        folder = self.folder
        self._variables = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
        self._holder: subprocess.Popen[str] | None = None

    @property
    def words(self) -> list[str]:
        """What stands before the words of a command of Podman."""
        store = ["--root", str(self.folder / "store"), "--runroot", str(self.folder / "run")]
        return ["podman", *store, "--storage-driver", "overlay"]

    @property
    def inside(self) -> list[str]:
        """What stands before a program of this computer that is to reach the published ports."""
        assert self._holder is not None
        return ["nsenter", "--target", str(self._holder.pid), "--mount", "--net", "--"]

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "containers.conf").write_text(_SETTINGS)
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "slave", "sh", "-c", _NAMESPACE],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            pytest.skip("this system denies the namespaces that containers need; run the tests as root outside of one")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run("rm", "--force", "--all", "--time", "1", check=False)
        self.run("network", "prune", "--force", check=False)
        if not self._is_kept:
            self.run("rmi", "--force", "--all", check=False)
        assert self._holder is not None
        self._holder.kill()
        self._holder.wait()
        # Podman mounts its store upon itself, and leaves it so
        subprocess.run(["umount", "--lazy", self.folder / "store" / "overlay"], capture_output=True, check=False)
        if not self._is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def program(self) -> Path:
        """Write a program that is Podman here, and return it."""
        path = self.folder / "podman"
        words = " ".join(f"'{word}'" for word in [*self.inside, *self.words])
        path.write_text(f"#!/bin/sh\nCONTAINERS_CONF='{self.folder}/containers.conf' exec {words} \"$@\"\n")
        path.chmod(0o755)
        return path

    def run(self, *words: str | Path, timeout: float = 600, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of Podman in the network of the containers; stdout and stderr are kept apart."""
        return self._do([*self.inside, *self.words, *map(str, words)], timeout, check)

    def here(self, *words: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program of this computer where the published ports are reached."""
        return self._do([*self.inside, *map(str, words)], timeout, check=True)

    def build(self, dockerfile: Path, tag: str, *options: str, context: Path = REPOSITORY) -> str:
        """Build an image of a folder, by default the checkout, in this computer's network; return what was said."""
        words = [
            "build",
            "--isolation",
            "chroot",
            "--network",
            "host",
            "--format",
            "docker",
            "--layers",
            "--pull=never",
        ]
        words += [*options, "--file", str(dockerfile), "--tag", tag, str(context)]
        return self._do(["nice", "-n", "19", *self.words, *words], 3000, check=True).stdout

    def _do(self, command: Sequence[str], timeout: float, check: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            list(command), capture_output=True, text=True, timeout=timeout, env=self._variables, check=False
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
        return done

    def is_healthy(self, container: str) -> bool:
        """Run a container's health check once, as an engine does time and again."""
        return self.run("healthcheck", "run", container, check=False).returncode == 0

    def logs(self, container: str) -> str:
        """Return what a container has said."""
        done = self.run("logs", container, check=False)
        return done.stdout + done.stderr


def wait_until(holds: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Wait until something holds; fail with what ``otherwise`` returns when it does not within ``seconds``."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            pytest.fail(f"it did not come within {seconds:g} seconds: {otherwise()[-4000:]}")
        time.sleep(0.5)
