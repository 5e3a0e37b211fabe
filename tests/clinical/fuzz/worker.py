"""Open damaged inputs one after the other in a process of little memory and patience; run by ``supervisor``.

Arguments: folder of the samples, seed, first number, how many, and the folder for the report, in which the files lie
that samples refer to. The number of the input
at work is in the file ``progress``, for whoever finds this process dead.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from clinical.fuzz.mutations import mutated
from clinical.fuzz.samples import SLIDES
from msrf_monai.clinical.reading import RefusedInput, open_case
from msrf_monai.clinical.slides import open_slide

__all__ = ["SECONDS", "main", "open_all"]

SECONDS = 5
"""Processor time that one input may take."""
_ROOM = 1 << 30
"""Bytes of address space above those of a process that has read every sample."""


class OutOfTime(BaseException):
    """An input took too long; no ``except Exception`` keeps it."""


def main() -> None:
    """Run a batch; findings go to ``report.json``, the number at work to ``progress``."""
    samples_folder, report = Path(sys.argv[1]), Path(sys.argv[5])
    seed, first, count = (int(text) for text in sys.argv[2:5])
    samples = {path.name: path.read_bytes() for path in sorted(samples_folder.iterdir())}
    for name in SLIDES.keys() & samples.keys():  # the process before this one may have died at a damaged one
        (report / SLIDES[name][0]).write_bytes(samples[name])
    for name, data in samples.items():  # loads every decoder before memory is counted
        open_all(report, name, data)
    used = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, used + _ROOM))
    signal.signal(signal.SIGPROF, _stop)
    progress = os.open(report / "progress", os.O_WRONLY | os.O_CREAT)
    outcomes: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    for number in range(first, first + count):
        os.pwrite(progress, number.to_bytes(8, "little"), 0)
        name, data = mutated(samples, seed, number)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            outcome = open_all(report, name, data)
        except BaseException as error:
            outcome = "finding"
            trace = [f"{Path(part.filename).name}:{part.lineno}" for part in traceback.extract_tb(error.__traceback__)]
            findings.append({"number": number, "sample": name, "error": repr(error)[:300], "trace": trace[-6:]})
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if "MemoryError" in outcome:
            findings.append({"number": number, "sample": name, "error": outcome, "trace": []})
        outcomes[outcome.partition(":")[0]] += 1
    content = {"outcomes": outcomes, "findings": findings, "peak_mib": _peak_kib() >> 10}
    (report / "report.json").write_text(json.dumps(content), encoding="utf-8")


def open_all(folder: Path, name: str, data: bytes) -> str:
    """Open one file, decode its first, middle and last frame or a tile of each level, and say what came of it."""
    place, opened = SLIDES.get(name, ("input", "input"))
    (folder / place).write_bytes(data)
    try:
        if name in SLIDES:
            with open_slide(folder / opened) as slide:
                for level in range(len(slide.info.levels)):
                    slide.read_region(level, 0, 0, 16, 16)
        else:
            case = open_case(folder / opened)
            for index in sorted({0, case.info.frames // 2, case.info.frames - 1}):
                case.frame(index)
    except RefusedInput as refusal:
        return f"{refusal.code.value}: {refusal.sentence}"
    return "read"


def _stop(number: int, frame: FrameType | None) -> None:
    raise OutOfTime(f"more than {SECONDS} s of processor time")


def _peak_kib() -> int:
    # Not ru_maxrss: it counts what the process that started this one held.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    main()
