"""Requests whose names would leave the folder of images are refused: MONAI Label joins them to paths as they come."""

from __future__ import annotations

import fnmatch
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msrf_monai.optional import require

__all__ = ["guarded", "leaves_its_folder"]

_METHODS = (
    *("add_image", "get_image", "get_image_uri", "get_image_info", "update_image_info", "remove_image"),
    *("save_label", "get_label", "get_label_uri", "get_label_info", "update_label_info", "remove_label"),
)
_NAMES = ("image_id", "label_id", "label_tag")


def leaves_its_folder(name: str) -> bool:
    """Tell whether a name, put behind a folder, could mean a file elsewhere."""
    return name in (".", "..") or any(character in name for character in "/\\\0")


def guarded(store: Any) -> Any:
    """Let a datastore refuse ids and tags that lead out of its folder, and uploads that it would never list.

    Args:
        store: a datastore of MONAI Label; its own methods are wrapped.

    Returns:
        The same datastore. What it refuses is answered with status 400 and one sentence.
    """
    kinds = tuple(getattr(store, "_extensions", ()))
    for name in _METHODS:
        setattr(store, name, _wrapped(getattr(store, name), kinds))
    return store


def _wrapped(method: Callable[..., Any], kinds: Sequence[str]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        for name in _NAMES:
            if leaves_its_folder(str(given.get(name) or "")):
                what = "tag" if name == "label_tag" else "id"
                _refuse(f"this {what} has a slash or dots that lead to another folder; expected a plain name")
        # among them datastore_v2.json, which says where labels go
        if method.__name__ == "add_image" and not _is_listed(str(given["image_filename"]), kinds):
            _refuse(f"the file is of no kind that this server lists; expected one of {', '.join(kinds)}")
        return method(*args, **kwargs)

    return checked


def _is_listed(file: str, kinds: Sequence[str]) -> bool:
    name = Path(file).name.lower()
    return any(fnmatch.fnmatchcase(name, kind.lower()) for kind in kinds)


def _refuse(why: str) -> None:
    raise require("fastapi", "label").HTTPException(status_code=400, detail=why)
