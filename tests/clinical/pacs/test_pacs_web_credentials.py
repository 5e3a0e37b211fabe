"""Credentials of a DICOMweb server: where they come from, and that nobody sees them."""

from __future__ import annotations

import base64
import logging
import shutil
import ssl
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from msrf_monai.clinical.pacs.stow import StowDestination
from msrf_monai.clinical.pacs.web import WebArchive
from msrf_monai.clinical.pacs.web_connection import BEARER_VARIABLE
from msrf_monai.errors import ConfigError, PacsError
from support.web_server import Request, WebServer

NOTHING = (204, "application/dicom+json", b"")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment's nor this user's own."""
    monkeypatch.delenv(BEARER_VARIABLE, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([], None),
        (["netrc"], basic("keeper", "netrc-password")),
        (["netrc", "environment"], "Bearer environment-token"),
        (["netrc", "environment", "address"], basic("me@home", "p/w")),
        (["netrc", "environment", "address", "argument"], "Bearer argument-token"),
    ],
    ids=["none", "netrc", "environment", "address", "argument"],
)
def test_the_nearest_credentials_are_sent(
    sources: list[str], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "netrc" in sources:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login keeper password netrc-password\n")
        (tmp_path / "netrc").chmod(0o600)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if "environment" in sources:
        monkeypatch.setenv(BEARER_VARIABLE, "environment-token\n")
    with WebServer(lambda request, handler: NOTHING) as server:
        url = server.url.replace("//", "//me%40home:p%2Fw@") if "address" in sources else server.url
        with WebArchive(url, token="argument-token" if "argument" in sources else None) as archive:
            assert archive.studies({"StudyDate": "2020"}) == []
        (request,) = server.requests
    assert request.headers.get("Authorization") == expected


def test_credentials_in_an_address_are_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    with WebServer(lambda request, handler: (401, "text/plain", b"")) as server, caplog.at_level(logging.DEBUG):
        url = server.url.replace("//", "//doctor:hunter2@") + "/"
        with WebArchive(url) as archive, StowDestination(url) as destination:
            shown = [archive.url, archive.name, destination.name, repr(archive), repr(destination)]
            with pytest.raises(PacsError) as caught:
                archive.studies({"StudyDate": "2020"})
    assert archive.url == server.url
    assert destination.name == f"STOW-RS {server.url}"
    everything = " ".join([*shown, str(caught.value), caplog.text])
    assert "hunter2" not in everything
    assert "doctor" not in everything


def test_credentials_do_not_follow_a_redirect() -> None:
    with WebServer(lambda request, handler: NOTHING) as elsewhere:

        def answer(request: Request, handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", elsewhere.url)
            handler.end_headers()

        with (
            WebServer(answer) as server,
            WebArchive(server.url, token="abc") as archive,
            pytest.raises(PacsError, match="another address"),
        ):
            archive.studies({"StudyDate": "2020"})
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pacs.example/dicom-web",
        "ftp://u:hunter2@pacs.example/",
        "http://",
        "http://u:hunter2@",
        "http://u:hunter2@pacs:99999/",
        "http://u:hunter2@pacs:x/",
        "http://u:hunter2@pacs/?limit=1",
        "http://u:hunter2@pacs/#top",
        "http://u:hunter2@pa cs/",
        "http://u:hunter2@pacs/\n",
        "http://u:hunter2@[::1/",
    ],
    ids=range(12),
)
def test_an_address_that_is_none_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match="the address of a DICOMweb service is") as caught:
        WebArchive(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ünïcode"])
def test_a_token_that_is_none_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ConfigError, match=BEARER_VARIABLE) as caught:
        WebArchive("http://127.0.0.1/dicom-web", token=token)
    assert token not in str(caught.value)


def test_other_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="time-out"):
        WebArchive("http://127.0.0.1/dicom-web", timeout=0)
    with pytest.raises(ConfigError, match="is no file"):
        WebArchive("http://127.0.0.1/dicom-web", verify=tmp_path)
    with pytest.raises(ConfigError, match="a page must have"):
        WebArchive("http://127.0.0.1/dicom-web", page=0)


def test_urllib3_still_speaks_for_others(caplog: pytest.LogCaptureFixture) -> None:
    with WebServer(lambda request, handler: NOTHING) as server, caplog.at_level(logging.DEBUG, logger="urllib3"):
        with WebArchive(server.url) as archive:
            archive.studies({"PatientID": "SECRET"})
        assert caplog.text == ""
        requests.get(f"{server.url}/others", timeout=5)
    assert "/dicom-web/others" in caplog.text


def test_only_a_trusted_certificate_is_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=pacs"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with WebServer(lambda request, handler: NOTHING, context) as server:
        assert server.url.startswith("https://")
        with WebArchive(server.url) as archive, pytest.raises(PacsError, match="no secure connection") as caught:
            archive.studies({"PatientID": "SECRET"})
        assert caught.value.is_lasting
        with WebArchive(server.url, verify=certificate) as archive:
            assert archive.studies({"PatientID": "SECRET"}) == []
    assert "SECRET" not in caplog.text + str(caught.value)
