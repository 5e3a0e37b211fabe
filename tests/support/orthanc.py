"""A real Orthanc on loopback, started by the test that needs it and stopped by it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

__all__ = ["Orthanc", "free_port", "orthanc_program"]

_PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


_HELD: list[socket.socket] = []


def free_port() -> int:
    """Return a port of loopback that nobody listens on, and that nobody else is given while this process lives.

    It stays bound here, which turns connections away and keeps no server out that has ``SO_REUSEADDR`` as this does.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    _HELD.append(held)
    return int(held.getsockname()[1])


def orthanc_program() -> str:
    """Return the path of Orthanc, which has its plugin for DICOMweb; skip the test where either is missing."""
    if not Path(_PROGRAM).exists() or not _PLUGIN.exists():
        pytest.skip("no Orthanc: apt-get install orthanc orthanc-dicomweb")
    return _PROGRAM


class Orthanc:
    """A server with DIMSE and DICOMweb, whose store survives ``stop`` and ``start``.

    Args:
        folder: for its settings, its store and its log.
        modalities: DIMSE peers as ``{"name": (AE title, port)}``, to which ``send`` can send.
    """

    aet = "ORTHANC"

    def __init__(self, folder: Path, modalities: dict[str, tuple[str, int]] | None = None) -> None:
        self._program = orthanc_program()
        self.port, self.http_port = free_port(), free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "Name": "LOOPBACK",
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "HttpPort": self.http_port,
            "HttpBindAddresses": ["127.0.0.1"],
            "DicomAet": self.aet,
            "DicomPort": self.port,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowEcho": True,
            "UnknownSopClassAccepted": True,
            "DicomModalities": {name: [aet, "127.0.0.1", port] for name, (aet, port) in (modalities or {}).items()},
            "Plugins": [str(_PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
            "StableAge": 1,
            "OverwriteInstances": True,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")

    @property
    def url(self) -> str:
        """Of its own REST interface."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        """Of its DICOMweb interface."""
        return f"{self.url}/dicom-web"

    def start(self) -> Orthanc:
        """Start it and wait until it answers."""
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self._folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
            )
        for _ in range(300):
            try:
                self.get("/system")
            except (URLError, OSError):
                if self._process.poll() is not None:
                    break
                time.sleep(0.1)
            else:
                return self
        raise RuntimeError((self._folder / "log.txt").read_text(errors="replace")[-2000:])

    def stop(self) -> None:
        """End it and wait for that; what it holds stays on the disk."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def get(self, path: str) -> Any:
        """Return what its REST interface answers, JSON read."""
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        """Return the body of an answer."""
        with urlopen(self.url + path, timeout=30) as answer:
            return bytes(answer.read())

    def instances(self, modality: str = "") -> dict[str, bytes]:
        """Return every stored file by its SOP instance UID, or those of one modality such as ``"SEG"``."""
        found = {}
        for name in self.get("/instances"):
            tags = self.get(f"/instances/{name}/simplified-tags")
            if modality in ("", tags.get("Modality")):
                found[tags["SOPInstanceUID"]] = self.get_bytes(f"/instances/{name}/file")
        return found

    def __enter__(self) -> Orthanc:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
