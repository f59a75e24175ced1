"""Pages that load nothing from elsewhere, and in which everything is escaped."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

from dynctl.ui.figures import clean


def page_template(package: str, name: str, **filters: Callable[..., str]) -> Template:
    """The template `name` that lies in `package`. A name that it is not given is an error."""
    env = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_clean)
    env.filters |= filters
    return env.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))


def _clean(value: object) -> object:
    """Text without control characters; what a template marks safe has been escaped by who made it."""
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
