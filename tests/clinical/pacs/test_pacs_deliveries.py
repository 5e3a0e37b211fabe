"""Each result is sent once, whatever happens to the PACS, to the disk or to the process."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.clinical.ledger import Entry, OutputRecord
from msrf_monai.clinical.pacs.delivery import DELIVERIES, DICOM_KINDS, Deliveries, Sent
from msrf_monai.clinical.pacs.retry import Backoff, persistent
from msrf_monai.errors import DataError, PacsError, StorageError

NOW_OR_NEVER = Backoff(give_up_after=0)
SOON = Backoff(first=0.001, longest=0.002, give_up_after=60)


class Pacs:
    """Accepts everything, unless a test says otherwise for a call or a file; keeps what it was sent."""

    name = "STOW-RS http://pacs/dicom-web"

    def __init__(self, judge: Callable[[Pacs, Path], Sent | None] | None = None) -> None:
        self.judge = judge
        self.calls: list[list[str]] = []
        self.taken: list[str] = []

    def send(self, paths: Sequence[Path]) -> Iterator[Sent]:
        self.calls.append([path.name for path in paths])
        for path in paths:
            said = Sent(path, is_accepted=True) if self.judge is None else self.judge(self, path)
            if said is not None:
                self.taken.append(path.name)
                yield said


def record_in(folder: Path, name: str, kind: str = "seg") -> OutputRecord:
    content = f"content of {name}".encode()
    (folder / name).write_bytes(content)
    return OutputRecord(kind, name, hashlib.sha256(content).hexdigest(), len(content))


def records_in(folder: Path, count: int) -> list[OutputRecord]:
    return [record_in(folder, f"{number}.dcm") for number in range(count)]


def entry_of(*outputs: OutputRecord, folder: str = "a", state: Any = "done") -> Entry:
    return Entry(folder, folder, "d" * 64, state, outputs=outputs)


def lines_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / DELIVERIES).read_text().splitlines()]


def test_only_dicom_objects_of_inputs_that_are_done_are_outstanding(tmp_path: Path) -> None:
    kinds = ("mask", "seg", "labelmap", "fractional", "sr", "overlay-sc", "pr", "nifti", "prob", "stats", "thumbnail")
    outputs = [OutputRecord(kind, f"a/{kind}", "0" * 64, 1) for kind in kinds]
    failed = entry_of(OutputRecord("seg", "b/seg.dcm", "0" * 64, 1), folder="b", state="failed")
    with Deliveries(tmp_path) as deliveries:
        found = deliveries.outstanding([entry_of(*outputs), failed], "anywhere")
    assert {record.kind for record in found} == set(DICOM_KINDS)
    assert [record.path for record in found] == [record.path for record in outputs if record in found]


def test_an_object_is_sent_once_to_each_destination_and_again_when_it_was_made_anew(tmp_path: Path) -> None:
    record = record_in(tmp_path, "seg.dcm")
    with Deliveries(tmp_path) as deliveries:
        deliveries.deliver(Pacs(), [record], backoff=NOW_OR_NEVER)
    anew = OutputRecord("seg", "seg.dcm", "1" * 64, 1)
    with Deliveries(tmp_path) as again:
        assert again.outstanding([entry_of(record)], Pacs.name) == []
        assert again.outstanding([entry_of(record)], "another") == [record]
        assert again.outstanding([entry_of(anew)], Pacs.name) == [anew]


def test_every_answer_is_on_the_disk_before_the_next_is_waited_for(tmp_path: Path) -> None:
    written: list[int] = []

    def judge(pacs: Pacs, path: Path) -> Sent:
        written.append(len(lines_of(tmp_path)))
        return Sent(path, is_accepted=True)

    with Deliveries(tmp_path) as deliveries:
        result = deliveries.deliver(Pacs(judge), records_in(tmp_path, 5), backoff=NOW_OR_NEVER)
    assert (result.accepted, result.refused, result.waiting) == (5, 0, 0)
    assert written == [0, 1, 2, 3, 4]


def test_a_line_says_what_became_of_an_object_and_no_more(tmp_path: Path) -> None:
    record = record_in(tmp_path, "seg.dcm")
    pacs = Pacs(lambda pacs, path: Sent(path, False, "failure_0xA900: another kind"))
    with Deliveries(tmp_path) as deliveries:
        result = deliveries.deliver(pacs, [record], backoff=NOW_OR_NEVER)
        assert deliveries.outstanding([entry_of(record)], pacs.name) == []
    assert (result.accepted, result.refused, result.waiting) == (0, 1, 0)
    expected = {"destination": pacs.name, "path": "seg.dcm", "sha256": record.sha256}
    assert lines_of(tmp_path) == [expected | {"state": "refused", "reason": "failure_0xA900: another kind"}]


def test_a_pacs_that_breaks_off_again_and_again_gets_each_object_once(tmp_path: Path) -> None:
    def judge(pacs: Pacs, path: Path) -> Sent:
        if len(pacs.taken) == 3 * len(pacs.calls):
            raise PacsError("gone")
        return Sent(path, is_accepted=True)

    records, pacs = records_in(tmp_path, 20), Pacs(judge)
    with Deliveries(tmp_path) as deliveries:
        # a wait would fail the test: each call makes progress, so none is due
        result = deliveries.deliver(pacs, records, backoff=NOW_OR_NEVER, batch=8)
    assert (result.accepted, result.waiting) == (20, 0)
    assert sorted(pacs.taken) == sorted(record.path for record in records)
    assert [line["path"] for line in lines_of(tmp_path)] == pacs.taken


def test_what_a_killed_process_had_noted_is_not_sent_again(tmp_path: Path) -> None:
    def judge(pacs: Pacs, path: Path) -> Sent:
        if len(pacs.taken) == 2:
            raise KeyboardInterrupt
        return Sent(path, is_accepted=True)

    records = records_in(tmp_path, 5)
    with pytest.raises(KeyboardInterrupt), Deliveries(tmp_path) as deliveries:
        deliveries.deliver(Pacs(judge), records, backoff=NOW_OR_NEVER)
    with Deliveries(tmp_path) as again:
        assert again.outstanding([entry_of(*records)], Pacs.name) == records[2:]


_KILLED = """
import sys, time
from pathlib import Path
from msrf_monai.clinical.ledger import OutputRecord
from msrf_monai.clinical.pacs.delivery import Deliveries, Sent
from msrf_monai.clinical.pacs.retry import Backoff
from msrf_monai.files import sha256_of

class Pacs:
    name = "STOW-RS http://pacs/dicom-web"
    def send(self, paths):
        for path in paths:
            with taken.open("a") as handle:
                handle.write(path.name + "\\n")
            time.sleep(0.005)
            yield Sent(path, is_accepted=True)

folder, taken = Path(sys.argv[1]), Path(sys.argv[2])
paths = sorted(folder.glob("*.dcm"))
records = [OutputRecord("seg", path.name, sha256_of(path), path.stat().st_size) for path in paths]
with Deliveries(folder) as deliveries:
    deliveries.deliver(Pacs(), records, backoff=Backoff())
"""


def test_kill_9_loses_nothing_and_repeats_at_most_what_was_not_answered(tmp_path: Path) -> None:
    folder, taken = tmp_path / "results", tmp_path / "taken.txt"
    folder.mkdir()
    taken.touch()
    records = records_in(folder, 300)
    child = subprocess.Popen([sys.executable, "-c", _KILLED, str(folder), str(taken)])
    while len(taken.read_text().splitlines()) < 20 and child.poll() is None:
        time.sleep(0.001)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    before, pacs = taken.read_text().splitlines(), Pacs()
    with Deliveries(folder) as deliveries:
        rest = deliveries.outstanding([entry_of(*records)], pacs.name)
        result = deliveries.deliver(pacs, rest, backoff=NOW_OR_NEVER)
    assert 0 < result.accepted == len(rest) < 300
    assert sorted(line["path"] for line in lines_of(folder)) == sorted(record.path for record in records)
    assert len(set(before) & set(pacs.taken)) <= 1


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_was_cut_short_counts_as_not_sent(tmp_path: Path, cut: int) -> None:
    records = records_in(tmp_path, 3)
    with Deliveries(tmp_path) as deliveries:
        deliveries.deliver(Pacs(), records, backoff=NOW_OR_NEVER)
    os.truncate(tmp_path / DELIVERIES, (tmp_path / DELIVERIES).stat().st_size - cut)
    with Deliveries(tmp_path) as again:
        assert again.outstanding([entry_of(*records)], Pacs.name) == records[2:]
        again.deliver(Pacs(), records[2:], backoff=NOW_OR_NEVER)
    assert [line["path"] for line in lines_of(tmp_path)] == ["0.dcm", "1.dcm", "2.dcm"]


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"state": "accepted"}', '{"state":"?","destination":"","path":"","sha256":""}']
)
def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / DELIVERIES).write_text(f"{line}\n")
    with pytest.raises(DataError, match="line 1 is damaged"):
        Deliveries(tmp_path)


@pytest.mark.parametrize("is_lasting", [False, True])
def test_a_pacs_that_stays_away_leaves_the_rest_waiting(
    tmp_path: Path, is_lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each look at the clock takes a second, so that time is over with the third attempt
    timed = partial(persistent, clock=count().__next__, sleep=lambda seconds: None)
    monkeypatch.setattr("msrf_monai.clinical.pacs.delivery.persistent", timed)

    def judge(pacs: Pacs, path: Path) -> Sent:
        if len(pacs.taken) >= 2:
            raise PacsError("http://pacs is away", is_lasting=is_lasting)
        return Sent(path, is_accepted=True)

    records, pacs = records_in(tmp_path, 7), Pacs(judge)
    with Deliveries(tmp_path) as deliveries:
        result = deliveries.deliver(pacs, records, backoff=Backoff(give_up_after=3), batch=2)
        assert deliveries.outstanding([entry_of(*records)], pacs.name) == records[2:]
    assert (result.accepted, result.refused, result.waiting) == (2, 0, 5)
    assert result.reason == "http://pacs is away"
    assert len(pacs.calls) == (2 if is_lasting else 4)


def test_one_object_that_makes_trouble_does_not_keep_later_ones_waiting(tmp_path: Path) -> None:
    def judge(pacs: Pacs, path: Path) -> Sent | None:
        if path.name == "0.dcm":
            return None
        return Sent(path, is_accepted=True)

    with Deliveries(tmp_path) as deliveries:
        result = deliveries.deliver(Pacs(judge), records_in(tmp_path, 9), backoff=NOW_OR_NEVER, batch=3)
    assert (result.accepted, result.refused, result.waiting) == (8, 0, 1)
    assert "said nothing about" in result.reason


def test_a_temporary_trouble_is_waited_for(tmp_path: Path) -> None:
    def judge(pacs: Pacs, path: Path) -> Sent:
        if len(pacs.calls) < 4:
            raise PacsError("away for a while")
        return Sent(path, is_accepted=True)

    pacs = Pacs(judge)
    with Deliveries(tmp_path) as deliveries:
        result = deliveries.deliver(pacs, records_in(tmp_path, 2), backoff=SOON)
    assert (result.accepted, result.waiting, len(pacs.calls)) == (2, 0, 4)


def test_a_delivery_that_is_stopped_begins_no_other_batch(tmp_path: Path) -> None:
    stop = threading.Event()

    def judge(pacs: Pacs, path: Path) -> Sent:
        stop.set()
        return Sent(path, is_accepted=True)

    with Deliveries(tmp_path) as deliveries:
        result = deliveries.deliver(Pacs(judge), records_in(tmp_path, 5), backoff=SOON, stop=stop, batch=2)
    assert (result.accepted, result.waiting) == (2, 3)
    assert "stopped" in result.reason


@pytest.mark.parametrize("damage", ["changed", "shortened", "missing", "a folder"])
def test_a_file_that_is_not_what_the_manifest_says_is_not_sent(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    records, pacs = records_in(tmp_path, 2), Pacs()
    path = tmp_path / "0.dcm"
    if damage == "changed":
        path.write_bytes(path.read_bytes().swapcase())
    elif damage == "shortened":
        os.truncate(path, 3)
    else:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
    with caplog.at_level(logging.WARNING), Deliveries(tmp_path) as deliveries:
        result = deliveries.deliver(pacs, records, backoff=NOW_OR_NEVER)
        assert deliveries.outstanding([entry_of(*records)], pacs.name) == []
    with Deliveries(tmp_path) as later:
        # a run with --resume makes it anew, with the same digest
        assert later.outstanding([entry_of(*records)], pacs.name) == records[:1]
    assert (result.accepted, result.refused, pacs.taken) == (1, 1, ["1.dcm"])
    (message,) = caplog.messages
    assert "refused 0.dcm: changed: the file is missing, or has changed since it was written" in message
    assert [line["state"] for line in lines_of(tmp_path)] == ["refused", "accepted"]


def test_a_result_that_is_made_anew_while_the_pacs_is_away_is_not_sent_as_the_old_one(tmp_path: Path) -> None:
    record = record_in(tmp_path, "seg.dcm")
    waits: list[Path] = []

    def judge(pacs: Pacs, path: Path) -> Sent:
        if not waits:
            waits.append(path)
            path.write_bytes(b"made anew")
            raise PacsError("away")
        raise AssertionError("it was sent")

    with Deliveries(tmp_path) as deliveries:
        result = deliveries.deliver(Pacs(judge), [record], backoff=SOON)
    assert (result.accepted, result.refused, result.waiting) == (0, 1, 0)


def test_what_was_refused_is_tried_again_by_the_next_process_and_not_by_this_one(tmp_path: Path) -> None:
    record = record_in(tmp_path, "seg.dcm")
    strict = Pacs(lambda pacs, path: Sent(path, False, "no_context: it takes none of these"))
    with Deliveries(tmp_path) as deliveries:
        deliveries.deliver(strict, [record], backoff=NOW_OR_NEVER)
        assert deliveries.outstanding([entry_of(record)], Pacs.name) == []
    with Deliveries(tmp_path) as later:
        again = later.outstanding([entry_of(record)], Pacs.name)
        result = later.deliver(Pacs(), again, backoff=NOW_OR_NEVER)
    with Deliveries(tmp_path) as last:
        assert last.outstanding([entry_of(record)], Pacs.name) == []
    assert again == [record]
    assert (result.accepted, result.refused) == (1, 0)


def test_a_full_disk_stops_the_delivery_and_the_object_counts_as_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, calls = records_in(tmp_path, 4), []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    with Deliveries(tmp_path) as deliveries:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StorageError, match="No space left"):
                deliveries.deliver(Pacs(), records, backoff=NOW_OR_NEVER)
        assert deliveries.outstanding([entry_of(*records)], Pacs.name) == records[2:]
    assert [line["path"] for line in lines_of(tmp_path)] == ["0.dcm", "1.dcm"]


def test_nothing_to_send_is_nothing_to_ask(tmp_path: Path) -> None:
    pacs = Pacs()
    with Deliveries(tmp_path) as deliveries:
        result = deliveries.deliver(pacs, [], backoff=NOW_OR_NEVER)
    assert (result.accepted, result.refused, result.waiting, result.reason, pacs.calls) == (0, 0, 0, "", [])
