"""Peers of a listener that we did not write, and a listener in a process of its own that can be killed.

Called as a program: ``dimse_peers.py INBOX JSON``; listens, prints its port, and goes on until it is ended. The JSON
may hold ``limits``, ``debug`` (log everything), and ``file_bytes``, above which the system refuses to write files.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID

from msrf_monai.clinical.pacs.inbox import Inbox
from msrf_monai.clinical.pacs.listener import Listener, ListenerOptions
from msrf_monai.clinical.reading.limits import Limits

__all__ = ["Client", "data_set", "dcmtk", "echoes", "listener_process", "sample", "samples"]

SAMPLES = (
    "CT_small.dcm",  # explicit VR little endian
    "SC_rgb_jpeg_dcmd.dcm",  # implicit VR
    "ExplVR_BigEnd.dcm",
    "image_dfl.dcm",  # deflated
    "MR_small_RLE.dcm",
    "GDCMJ2K_TextGBR.dcm",  # JPEG 2000 lossless
    "JPEG2000.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "SC_jpeg_no_color_transform.dcm",  # JPEG baseline
    "JPGExtended.dcm",
    "SC_rgb_jpeg_gdcm.dcm",  # JPEG lossless
    "test-SR.dcm",  # no image
    "waveform_ecg.dcm",
)
"""Files that pydicom brings, by transfer syntax and kind."""


def sample(name: str) -> Path:
    """Return one of the files that pydicom brings."""
    found = get_testdata_file(name)
    assert isinstance(found, str)
    return Path(found)


def samples(folder: Path) -> list[Path]:
    """Write files of every common transfer syntax to a folder, each another object of another study."""
    folder.mkdir()
    paths = []
    for number, name in enumerate(SAMPLES):
        dataset = dcmread(sample(name))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.7000{number}"
        dataset.StudyInstanceUID = f"2.25.8000{number}"
        paths.append(folder / name)
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def data_set(file: bytes) -> bytes:
    """Return what follows the file meta information, by its announced length."""
    assert file[128:132] == b"DICM"
    assert file[132:140] == b"\x02\0\0\0UL\x04\0"
    return file[144 + int.from_bytes(file[140:144], "little") :]


def dcmtk(program: str, *arguments: str | Path, timeout: float = 60) -> tuple[int, str]:
    """Run a program of DCMTK; return its exit status and what it said."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: apt-get install dcmtk")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


def echoes(port: int, aet: str = "MSRF_MONAI") -> bool:
    """Return whether a peer answers DCMTK's echo, which is sent again for a minute as long as it does not."""
    until = time.monotonic() + 60
    while dcmtk("echoscu", "-aec", aet, "127.0.0.1", port)[0] != 0:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


class Client:
    """A pynetdicom association that sends bytes as they are, well-formed or not."""

    def __init__(self, port: int, contexts: list[tuple[str, str]], *, aet: str = "CLIENT", **options: Any) -> None:
        from pynetdicom import AE, build_context, evt

        entity = AE(aet)
        entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = 60
        proposed = [build_context(sop_class, syntax) for sop_class, syntax in contexts]
        handlers = [(evt.EVT_CONN_OPEN, _send_at_once)]
        self.association = entity.associate(
            "127.0.0.1", port, proposed, ae_title="MSRF_MONAI", evt_handlers=handlers, **options
        )

    @classmethod
    def of_files(cls, port: int, paths: list[Path], **options: Any) -> Client:
        """Propose what files need."""
        return cls(port, sorted({_kind(path) for path in paths}), **options)

    def accepted(self) -> set[tuple[str, str]]:
        """Return what the peer takes."""
        contexts = self.association.accepted_contexts
        return {(str(each.abstract_syntax), str(each.transfer_syntax[0])) for each in contexts}

    def send(self, sop_class: str, instance: str, content: bytes, *, context: tuple[str, str] | None = None) -> Any:
        """Send a data set and return the status, or None when there was no answer, or nobody to send it to."""
        if not self.association.accepted_contexts:
            return None  # the listener had gone before it could take the association
        from pynetdicom.dimse_primitives import C_STORE

        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        # past its checks, which refuse to send what is too long
        request._affected_sop_class_uid, request._affected_sop_instance_uid = UID(sop_class), UID(instance)
        request.DataSet = BytesIO(content)
        numbers = {
            (str(each.abstract_syntax), str(each.transfer_syntax[0])): each.context_id
            for each in self.association.accepted_contexts
        }
        number = numbers[context] if context else next(iter(numbers.values()))
        self.association._reactor_checkpoint.clear()
        self.association.dimse.send_msg(request, number)
        _, answer = self.association.dimse.get_msg(block=True)
        self.association._reactor_checkpoint.set()
        return None if answer is None else answer.Status

    def send_file(self, path: Path) -> Any:
        """Send a file's data set as it is."""
        content = data_set(path.read_bytes())
        return self.send(_kind(path)[0], str(_header(path).SOPInstanceUID), content, context=_kind(path))

    def is_aborted(self) -> bool:
        """Wait for up to a minute until the association is aborted; return whether it is."""
        until = time.monotonic() + 60
        while not self.association.is_aborted and time.monotonic() < until:
            time.sleep(0.01)
        return bool(self.association.is_aborted)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        if self.association.is_established:
            self.association.release()
        else:
            self.association.kill()


def _send_at_once(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@cache
def _header(path: Path) -> Any:
    return dcmread(path, stop_before_pixels=True)


def _kind(path: Path) -> tuple[str, str]:
    return str(_header(path).SOPClassUID), str(_header(path).file_meta.TransferSyntaxUID)


@contextmanager
def listener_process(inbox: Path, **settings: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a listener in a process of its own; yield the process and its port."""
    paths = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, __file__, str(inbox), json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(process.stderr.read())
        yield process, int(line)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Listen until ended."""
    settings = json.loads(sys.argv[2])
    if "file_bytes" in settings:
        resource.setrlimit(resource.RLIMIT_FSIZE, (settings["file_bytes"], settings["file_bytes"]))
    options = ListenerOptions(port=0, any_caller=True, limits=Limits(**settings.get("limits", {})))
    with Listener(Inbox(Path(sys.argv[1])), options) as listener:
        listener.start()
        if settings.get("debug"):
            logging.basicConfig(level=logging.DEBUG)
            for name in logging.root.manager.loggerDict:
                logging.getLogger(name).setLevel(logging.DEBUG)
        print(listener.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
