"""A headless Chromium that is driven by a script of this folder; see ``browser.js``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

__all__ = ["browser_tools", "folder_with", "in_browser"]

_HOW = {
    "NODE_PATH": "npm i playwright-core && export NODE_PATH=$PWD/node_modules",
    "chromium": "apt-get install chromium, or export CHROMIUM=/path/to/another",
    "node": "apt-get install nodejs npm",
}
"""How to get what is missing."""


def browser_tools() -> dict[str, str]:
    """Return where the browser and what drives it are; skip with the commands that bring what is missing."""
    found = {
        "NODE_PATH": folder_with("playwright-core", "NODE_PATH"),
        "chromium": shutil.which(os.environ.get("CHROMIUM") or "chromium"),
        "node": shutil.which("node"),
    }
    missing = [how for name, how in _HOW.items() if found[name] is None]
    if missing:
        pytest.skip("no browser that tests can drive: " + "; ".join(missing))
    return {name: place for name, place in found.items() if place is not None}


def folder_with(content: str, variable: str) -> str | None:
    """Return the first folder that an environment variable names and that holds something."""
    names = filter(None, os.environ.get(variable, "").split(os.pathsep))
    return next((str(Path(name).resolve()) for name in names if (Path(name) / content).exists()), None)


def in_browser(script: str, job: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Run a script of this folder and return what it has seen; fail with what it says when it breaks off.

    Args:
        script: its name.
        job: what it is to do.
        size: width and height of the window.
    """
    tools = browser_tools()
    whole = {
        **job,
        "chromium": tools["chromium"],
        "is_root": os.geteuid() == 0,
        "width": size[0],
        "height": size[1],
    }
    done = subprocess.run(
        [tools["node"], str(Path(__file__).with_name(script))],
        input=json.dumps(whole),
        env={**os.environ, "NODE_PATH": tools["NODE_PATH"]},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{script} broke off: {done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
