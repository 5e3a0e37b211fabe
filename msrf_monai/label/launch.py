"""The command that the server is started by, with its environment variables."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msrf_monai.label.app_folder import AppFolder
from msrf_monai.label.environment import Environment
from msrf_monai.label.options import LabelOptions, is_loopback, is_remote

__all__ = ["FILES", "Launch", "launch_of", "warnings_of"]

FILES = ("png", "jpg", "jpeg", "bmp", "tif", "tiff", "ppm", "webp", "dcm", "nii", "nii.gz")
"""Endings of the files in a folder that the server lists; each in small and in capital letters."""


@dataclass(frozen=True)
class Launch:
    """A command and the environment variables that it needs beside those of this process."""

    command: tuple[str, ...]
    variables: Mapping[str, str]

    def line(self) -> str:
        """Return it as one line for a shell."""
        # double quotes, so that the shell puts its own PATH in
        words = [f'PATH={shlex.quote(self.variables["PATH"])}:"$PATH"']
        words += [f"{name}={shlex.quote(value)}" for name, value in self.variables.items() if name != "PATH"]
        return " ".join(["env", *words, *map(shlex.quote, self.command)])

    def environment(self) -> dict[str, str]:
        """Return all environment variables of the server."""
        path = os.pathsep.join(filter(None, (self.variables["PATH"], os.environ.get("PATH", ""))))
        return {**os.environ, **self.variables, "PATH": path}


def launch_of(options: LabelOptions, environment: Environment) -> Launch:
    """Return the command that starts MONAI Label's server.

    Args:
        options: checked.
        environment: with MONAI Label in it.
    """
    app = AppFolder(options.app_dir)
    studies = options.studies if is_remote(options.studies) else str(Path(options.studies).absolute())
    conf = {
        "models": ",".join(bundle.name for bundle in options.bundles),
        # any other source asks GitHub for a list of bundles, even where all bundles are here
        "zoo_source": "local",
        # otherwise the server fetches the weights of SAM 2 when it starts
        "sam2": "false",
    }
    if options.epistemic:
        conf["epistemic_model"] = options.epistemic
    # not the program monailabel: it takes whatever Python is on the PATH, and breaks paths with spaces
    command = [str(environment.python), "-m", "monailabel.main", "start_server"]
    command += ["--app", str(app.root), "--studies", studies, "--host", options.host, "--port", str(options.port)]
    # MONAI Label lets the pages of every address send everything
    command += ["--uvicorn_app", "msrf_monai.label.server:app"]
    for name, value in conf.items():
        command += ["--conf", name, value]
    return Launch(tuple(command), _variables(options, app, environment))


def warnings_of(options: LabelOptions) -> list[str]:
    """Return sentences on what the user may not have thought of."""
    if os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("1", "true", "yes", "on"):
        return [
            "MONAI_LABEL_AUTH_ENABLE is set, and MONAI Label 0.8.5 then refuses everybody who logs in; "
            "docs/monai-label.md says what works instead"
        ]
    if is_loopback(options.host):
        return []
    archive = ", and everything in the archive with this server's password" if is_remote(options.studies) else ""
    return [
        f"{options.host} lets other computers reach the server, without encryption and without asking who they are: "
        f"they can read all images{archive}, change labels and start training. docs/monai-label.md says how to reach "
        "it through a tunnel instead"
    ]


def _variables(options: LabelOptions, app: AppFolder, environment: Environment) -> dict[str, str]:
    endings = [f"*.{ending}" for each in FILES for ending in (each, each.upper())]
    given = {
        # series of every kind, not only MONAI Label's default, CT
        "MONAI_LABEL_DICOMWEB_SEARCH_FILTER": "{}",
        # seconds; MONAI Label would list what has come to the archive after two hours only
        "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "30",
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps(endings),
        "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) - 1)),
        "HF_HUB_OFFLINE": "1",
        # what clients upload and what comes from a PACS lies in the app's folder, and not in the user's cache
        "MONAI_LABEL_SESSION_PATH": str(app.root / "sessions"),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(app.root / "dicomweb"),
    }
    own = {name: os.environ.get(name, value) for name, value in given.items()}
    if options.threads is not None:
        own["OMP_NUM_THREADS"] = str(options.threads)
    # our writer of segmentations, then dcmqi and all other programs of the environment
    path = os.pathsep.join([str(app.bin), str(environment.python.parent)])
    return {"PATH": path, **own}
