"""The images of the container recipes, built once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.docker_bases import DEBIAN, PYTHON, make_bases
from support.docker_engine import Engine

RECIPES = {
    "msrf-monai-orthanc:0.1.0": ("Dockerfile.orthanc", DEBIAN),
    "msrf-monai:0.1.0": ("Dockerfile", PYTHON),
    "msrf-monai-ray:0.1.0": ("Dockerfile.ray", "localhost/msrf-monai:0.1.0"),
    "msrf-monai-label:0.1.0": ("Dockerfile.label", PYTHON),
}


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("engine") / "podman") as made:
        yield made


@pytest.fixture(scope="session")
def built_for_ray(engine: Engine, repository: Path) -> Engine:
    """The engine, with the images of the package and of KubeRay."""
    return build(engine, repository, "msrf-monai:0.1.0", "msrf-monai-ray:0.1.0")


@pytest.fixture(scope="session")
def built(engine: Engine, repository: Path) -> Engine:
    """The engine, with every image built as its Dockerfile says, on stand-ins for what it begins with."""
    return build(engine, repository, *RECIPES)


def build(engine: Engine, repository: Path, *tags: str) -> Engine:
    """Build images; what was built before and has not changed takes seconds."""
    volumes = make_bases(engine)
    for tag in tags:
        name, base = RECIPES[tag]
        engine.build(repository / "docker" / name, f"localhost/{tag}", *volumes, "--build-arg", f"BASE={base}")
    return engine
