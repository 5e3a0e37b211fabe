"""Pages of reports: one HTML file from a template of this package, which fetches nothing from elsewhere."""

from __future__ import annotations

import base64
import importlib.resources
from collections.abc import Callable, Mapping
from typing import Any

from msrf_monai.optional import require

__all__ = ["data_uri", "render_template"]


def render_template(package: str, name: str, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Return a page.

    Args:
        package: the package that has the template, such as ``"msrf_monai.engines"``.
        name: file of the Jinja2 template. Texts are escaped, and a name that is not given is an error.
        filters: what the template calls on values.
        **values: what the template shows.

    Raises:
        MissingExtraError: when Jinja2 is missing.
    """
    jinja2 = require("jinja2", "train")
    template = importlib.resources.files(package).joinpath(name).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters)
    page: str = environment.from_string(template).render(**values)
    return page


def data_uri(content: bytes, kind: str) -> str:
    """Return a picture as an address that holds it.

    Example:
        >>> data_uri(b"GIF89a", "image/gif")
        'data:image/gif;base64,R0lGODlh'
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
