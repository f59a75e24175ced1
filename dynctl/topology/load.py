"""From a topology file to a Topology. `load` reads the file; everything else here is pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pydantic import ValidationError

from dynctl.errors import UsageError
from dynctl.topology.base import fits_as_name
from dynctl.topology.nodes import Map, Origin, place_of, to_data
from dynctl.topology.overrides import apply_overrides
from dynctl.topology.problems import from_validation
from dynctl.topology.schema import Topology, is_model_path
from dynctl.topology.suggest import nearest
from dynctl.topology.yaml_source import MAX_BYTES, compose_document, decode

__all__ = ["Bases", "as_json", "expand_user", "json_schema", "load", "load_text", "parse", "read_text"]

_PATH_KEYS = (
    ("model",),
    ("python",),
    ("frontend", "access_log"),
    ("frontend", "api_keys_file"),
    ("frontend", "tls", "cert"),
    ("frontend", "tls", "key"),
    ("secret_file",),
)


class Bases(NamedTuple):
    """What paths are relative to: of the file's own, its directory; of an override, where the command was typed."""

    file: PurePosixPath
    override: PurePosixPath
    expand_user: Callable[[str], str]


def load(path: Path, overrides: Sequence[str] = ()) -> Topology:
    """The topology in the file at `path` with `overrides` (`key.path=value`) applied and its paths made absolute.

    Raises UsageError for everything that is wrong with the file or an override.
    """
    return load_text(read_text(path), path, overrides)


def read_text(path: Path) -> str:
    """What the file at `path` says, bounded; UsageError where it can't be read."""
    return decode(_read(path), str(path))


def load_text(text: str, path: Path, overrides: Sequence[str] = ()) -> Topology:
    """As `load`, of a text that is not yet or never in the file at `path`."""
    bases = Bases(PurePosixPath(path.absolute().parent), PurePosixPath(Path.cwd()), expand_user)
    return parse(text, source=str(path), overrides=overrides, bases=bases)


def parse(text: str, *, source: str, overrides: Sequence[str] = (), bases: Bases | None = None) -> Topology:
    """The topology in `text`; `source` is the file's name, for errors and as the default name."""
    root = apply_overrides(compose_document(text, source), overrides)
    data = to_data(root)
    stem = PurePosixPath(source).stem
    if data.get("name") is None and fits_as_name(stem):
        data["name"] = stem
    if bases is not None:
        _resolve_paths(data, root, bases)
    try:
        topology = Topology.model_validate(data)
    except ValidationError as error:
        raise from_validation(error, root) from None
    topology._origin = Origin(root)
    return topology


def as_json(topology: Topology) -> str:
    """What was written of the topology, as JSON: loaded again it is the same."""
    return topology.model_dump_json(by_alias=True, exclude_unset=True)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a topology file, for editors."""
    from dynctl.topology.json_schema import json_schema as build  # only one command needs it

    return build()


def expand_user(text: str) -> str:
    """`~` and `~user` as this host knows them; the text as it is where it doesn't."""
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        return text


def _resolve_paths(data: dict[str, Any], root: Map, bases: Bases) -> None:
    """Makes the paths in `data` absolute, in place. What is not text is left for the schema to refuse."""
    nodes = data.get("nodes")
    snapshots = tuple(("nodes", name, "hardware") for name in nodes) if isinstance(nodes, dict) else ()
    for keys in (*_PATH_KEYS, *snapshots):
        section: Any = data
        for key in keys[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        value = section.get(keys[-1]) if isinstance(section, dict) else None
        if not isinstance(value, str) or not value.strip() or not _is_path(keys[-1], value):
            continue
        base = bases.file if place_of(root, keys).line is not None else bases.override
        section[keys[-1]] = str(base / bases.expand_user(value))


def _is_path(key: str, value: str) -> bool:
    if key == "model":
        return is_model_path(value)
    return key != "python" or "/" in value or value.startswith("~")


def _read(path: Path) -> bytes:
    """At most one byte more than a topology may have."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _unreadable(path, "there is no such file", _near_files(path)) from None
    except IsADirectoryError:
        inside = ", ".join(sorted(_names(path))[:5])
        fix = f"name a file in it: {inside}" if inside else "name a topology file; `dynctl init` writes one"
        raise _unreadable(path, "this is a directory, not a topology file", fix) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(
            "this topology can't be read",
            where=str(path),
            why=why,
            fix="check the path and its permissions",
        ) from None


def _unreadable(path: Path, cause: str, fix: str) -> UsageError:
    return UsageError(cause, where=str(path), why="a topology is a YAML file that says what to run", fix=fix)


def _near_files(path: Path) -> str:
    near = nearest(path.name, names := _names(path.parent)) or nearest(f"{path.name}.yaml", names)
    return f"did you mean {path.parent / near}?" if near else "check the path; `dynctl init` writes a topology"


def _names(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir() if entry.suffix in (".yaml", ".yml")][:1000]
    except OSError:
        return []
