"""What routing may know about a request, taken from its bytes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dynctl.frontend.body import Fields
from dynctl.frontend.prefixes import BLOCK_BYTES, Blocks, blocks_of, shared_blocks_of
from dynctl.http.message import Request

_BYTES_PER_TOKEN = BLOCK_BYTES // 16
_MAX_OUTPUT = 256
"""Tokens that an answer is taken for where the request sets no limit, and at most: few answers use up a high one."""
_SESSION_FIELDS = ("prompt_cache_key", "user")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """`tokens`, `output`: estimates of the prompt's and the answer's length. `blocks`: see `prefixes`. `matched`: how
    many of the tokens lie in each worker's cache, where that is known."""

    tokens: int = 0
    output: int = 0
    blocks: Blocks = ()
    session: bytes | None = None
    matched: Mapping[str, int] = {}


NOTHING = Ask()


def ask_of(request: Request, fields: Fields | None, *, prefixes: bool, alike: bool = False) -> Ask:
    """The estimates for a request; `prefixes`: with the blocks of its prompt, `alike`: as other processes have them,
    too. Nothing here can fail a request."""
    if fields is None:
        return NOTHING
    text = _prompt(fields)
    return Ask(
        tokens=max(1, len(text) // _BYTES_PER_TOKEN),
        output=_output(fields),
        blocks=(shared_blocks_of(text) if alike else blocks_of(text)) if prefixes else (),
        session=_session(request, fields),
    )


def tokens_of(fields: Fields) -> int:
    """The estimate of the prompt's length alone."""
    return max(1, len(_prompt(fields)) // _BYTES_PER_TOKEN)


def _prompt(fields: Fields) -> bytes:
    return bytes(fields.get("prompt") or fields.get("messages") or b"")


def _output(fields: Fields) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = bytes(fields.get(name, b""))
        if value.isdigit():
            return min(int(value[:9]), _MAX_OUTPUT)
    return _MAX_OUTPUT


def _session(request: Request, fields: Fields) -> bytes | None:
    given = request.header(b"x-session-id")
    if given:
        return given
    for name in _SESSION_FIELDS:
        value = bytes(fields.get(name, b""))
        if value.startswith(b'"') and value != b'""':
            return value
    return None
