"""OHIF in headless Chromium, with an archive on loopback behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from support.browser import browser_tools, folder_with, in_browser
from support.loopback import Served

__all__ = ["Ohif", "Page", "View"]

_VERSION = "3.12.10"
_ARCHIVE = "/dicom-web"
_WINDOW = (1440, 900)
_HOW = f"npm pack @ohif/app@{_VERSION} && tar xf ohif-app-{_VERSION}.tgz && export OHIF_DIST=$PWD/package/dist"


@dataclass(frozen=True)
class View:
    """One image in the viewport, without its segmentation and with it.

    Attributes:
        plain: without it, ``(H, W, 3)``.
        painted: with it.
        corners: ``(x, y)`` on both, in pixels, of the middles of the image's first pixel, of the last one of its first
            row and of the first one of its last row, as the viewer says.
        image: SOP instance UID.
    """

    plain: npt.NDArray[np.uint8]
    painted: npt.NDArray[np.uint8]
    corners: tuple[tuple[float, float], ...]
    image: str


@dataclass(frozen=True)
class Page:
    """What OHIF showed of a study.

    Attributes:
        views: one for each image that was asked for.
        segments: what the panel lists as segments.
        problems: errors that the page logged or raised.
    """

    views: tuple[View, ...]
    segments: tuple[str, ...]
    problems: tuple[str, ...]


class Ohif(Served):
    """Serves the viewer on loopback; skips the test when something for it is missing.

    Args:
        dicomweb: address of the archive behind it.
    """

    def __init__(self, dicomweb: str) -> None:
        browser_tools()
        pages = folder_with("index.html", "OHIF_DIST")
        if pages is None:
            pytest.skip(f"no OHIF: {_HOW}")
        handler = partial(_Handler, dicomweb, directory=pages)
        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), handler))

    def show(self, study: str, folder: Path, images: Sequence[str] = ("",)) -> Page:
        """Open a study, load its only segmentation and take pictures.

        Args:
            study: its UID.
            folder: takes ``screen0.png`` (the whole window), ``plain0.png`` and ``painted0.png`` of the first image, …
            images: SOP instance UIDs of what to look at; an empty one is the image that OHIF chose itself.
        """
        folder.mkdir(parents=True, exist_ok=True)
        job = {
            "address": f"http://127.0.0.1:{self._server.server_address[1]}/viewer?StudyInstanceUIDs={study}",
            "folder": str(folder),
            "images": list(images),
        }
        found = in_browser("ohif_shot.js", job, _WINDOW)
        views = tuple(_view(folder, number, seen) for number, seen in enumerate(found["views"]))
        return Page(views, tuple(found["segments"]), tuple(found["problems"]))


class _Handler(SimpleHTTPRequestHandler):
    """Gives the viewer's files, its settings, and what the archive behind it answers."""

    def __init__(self, dicomweb: str, *args: Any, **options: Any) -> None:
        self._dicomweb = dicomweb
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        place = self.path.partition("?")[0]
        if place == "/app-config.js":
            self._answer(200, "application/javascript", _settings())
        elif place.startswith(f"{_ARCHIVE}/"):
            self._fetch(self.path.removeprefix(_ARCHIVE))
        else:
            if not Path(self.translate_path(place)).is_file():
                self.path = "/index.html"  # the viewer's own addresses are told apart inside it
            super().do_GET()

    def _fetch(self, place: str) -> None:
        request = Request(self._dicomweb + place, headers={"Accept": self.headers.get("Accept", "*/*")})
        try:
            with urlopen(request, timeout=60) as answer:
                self._answer(answer.status, answer.headers.get("Content-Type", ""), answer.read())
        except HTTPError as error:
            self._answer(error.code, error.headers.get("Content-Type", ""), error.read())

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        # Browsers share memory between threads, which the viewer's decoders need, only with pages isolated like this.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _settings() -> bytes:
    archive = {
        "friendlyName": "archive",
        "name": "archive",
        **dict.fromkeys(("wadoUriRoot", "qidoRoot", "wadoRoot"), _ARCHIVE),
        "qidoSupportsIncludeField": False,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True},
    }
    module = "@ohif/extension-default.dataSourcesModule.dicomweb"
    settings = {
        "routerBasename": "/",
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "maxNumberOfWebWorkers": 1,
        "showCPUFallbackMessage": False,
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": "archive",
        "dataSources": [{"namespace": module, "sourceName": "archive", "configuration": archive}],
    }
    return f"window.config = {json.dumps(settings)};".encode()


def _view(folder: Path, number: int, seen: Mapping[str, Any]) -> View:
    return View(
        _pixels(folder / f"plain{number}.png"),
        _pixels(folder / f"painted{number}.png"),
        tuple((float(x), float(y)) for x, y in seen["corners"]),
        seen["image"],
    )


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
