"""What every section of a topology has in common, and the types of its values."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dynctl.topology.durations import PATTERN, parse_duration

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,39}$"
"""Of runs and of nodes."""
FREE_KEYS: dict[str, Any] = {"patternProperties": {"^x-": True}}


def wrong(
    cause: str, *, why: str | None = None, fix: str | None = None, at: tuple[str | int, ...] = ()
) -> PydanticCustomError:
    """A validation error whose `cause` continues "`path` ..."; `at`: the key it is about, from the raising section."""
    return PydanticCustomError("dynctl", "{cause}", {"cause": cause, "why": why, "fix": fix, "at": at})


def fits_as_name(name: str) -> bool:
    """Whether `name` can be the name of a run, and with it of a directory, or of a node."""
    return re.fullmatch(NAME_PATTERN[1:-1], name, re.ASCII) is not None


class Section(BaseModel):
    """A mapping with a fixed set of keys. Keys that begin with `x-` are the user's own and are dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, json_schema_extra=FREE_KEYS)

    empty_is_default: ClassVar[bool] = True
    """A key without a value counts as not written; False: it counts as an empty mapping."""

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        written = {key: value for key, value in data.items() if not key.startswith("x-")}
        if cls.empty_is_default:
            return {key: value for key, value in written.items() if value is not None}
        return {key: {} if value is None else value for key, value in written.items()}


def _in_seconds(value: Any, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong("must be a duration: a number with its unit, ms, s, m or h")
    try:
        return parse_duration(str(value))
    except ValueError as error:
        bare = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", str(value).strip(), re.ASCII)
        fix = f"write the unit too: `{str(value).strip()}{unit}`" if bare else None
        raise wrong(str(error), fix=fix) from None


def _seconds(value: Any) -> float:
    return _in_seconds(value, "s")


def _milliseconds(value: Any) -> float:
    return _in_seconds(value, "ms") * 1000.0


def _spelled(value: float, unit: str) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") + unit


def _printable(value: str) -> str:
    if not value.strip():
        raise wrong("must not be empty")
    if not value.isprintable():
        raise wrong("must be one line of printable text")
    return value


_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_FLAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def _env_names(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _ENV_NAME.fullmatch(name):
            raise wrong(
                "is not a name for an environment variable",
                why="names are letters, digits and `_`, and don't begin with a digit",
                fix="rename it",
                at=(name,),
            )
    return value


def _flag_names(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if not _FLAG_NAME.fullmatch(name):
            raise wrong(
                "is not the name of an engine flag",
                why="flags are written without their leading dashes, as letters, digits, `.`, `_` and `-`",
                fix=f"write `{name.lstrip('-')}`" if _FLAG_NAME.fullmatch(name.lstrip("-")) else "rename it",
                at=(name,),
            )
    return value


_DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": PATTERN})
_SCALAR_SCHEMA: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}

Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    PlainSerializer(lambda value: _spelled(value, "s"), when_used="json"),
    _DURATION_SCHEMA,
]
"""A duration, kept in seconds; in JSON with its unit again, so that a kept topology can be read back."""

Milliseconds = Annotated[
    float,
    BeforeValidator(_milliseconds),
    PlainSerializer(lambda value: _spelled(value, "ms"), when_used="json"),
    _DURATION_SCHEMA,
]
"""A duration, kept in milliseconds; in JSON with its unit again."""

Text = Annotated[str, AfterValidator(_printable), WithJsonSchema({"type": "string", "minLength": 1})]
"""One line of text."""

Env = Annotated[
    dict[str, str],
    AfterValidator(_env_names),
    WithJsonSchema({"type": "object", "additionalProperties": _SCALAR_SCHEMA}),
]
"""Environment variables; values as they are spelled in the file."""

Args = Annotated[dict[str, Any], AfterValidator(_flag_names)]
"""Engine flags without their leading dashes; values as parsed."""


def _gpu_name(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise wrong("must be a whole number or a UUID")
    if isinstance(value, int) and value < 0:
        raise wrong("must be zero or more")
    if isinstance(value, str) and not _GPU_UUID.fullmatch(value):
        raise wrong(
            "must be a whole number or a UUID",
            why="a GPU is named by its NVML index, or by its UUID, as `nvidia-smi -L` prints it: GPU-..., MIG-...",
        )
    return value


_GPU_UUID = re.compile(r"(GPU|MIG)-[A-Za-z0-9/-]{1,120}", re.ASCII)
Gpus = Annotated[
    tuple[
        Annotated[
            int | str,
            BeforeValidator(_gpu_name),
            WithJsonSchema(
                {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^(GPU|MIG)-"}]}
            ),
        ],
        ...,
    ],
    Field(strict=False),
]
"""GPUs by NVML index or UUID, MIG slices by UUID."""
Texts = Annotated[tuple[Text, ...], Field(strict=False)]
