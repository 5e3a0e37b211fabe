"""Scripts beside the tests in processes of their own: one that is killed, or two that work together."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed

TESTS = Path(__file__).resolve().parents[1]


def run_script(script: str | Path, *arguments: str | Path, timeout: int = 500) -> subprocess.CompletedProcess[str]:
    """Run a script that can import ``support`` as tests can."""
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


def exit_code_of(work: Callable[[], None]) -> int:
    """Work in a forked process, so that the imports are paid once; return its exit status (-9 when killed)."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def join_two(rank: int, folder: Path) -> None:
    """Make this process one of two that meet in a folder, each on one thread."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def exit_as_two(process: Callable[[int, Path], None], folder: Path, *, seconds: float = 120) -> None:
    """Call ``process`` with rank and folder in two forked processes, and exit with 1 unless both end well in time."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=process, args=(rank, folder)) for rank in range(2)]
    for each in processes:
        each.start()
    until = time.monotonic() + seconds
    for each in processes:
        each.join(max(0.0, until - time.monotonic()))
    for each in processes:
        each.kill()
        each.join()
    sys.exit(any(each.exitcode for each in processes))
