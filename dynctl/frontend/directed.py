"""Directed requests: the run's own token lets its proof choose the workers."""

from __future__ import annotations

import hmac
import os
from pathlib import Path
from typing import NamedTuple

from dynctl.errors import UsageError
from dynctl.frontend.errors import Failure
from dynctl.http.message import Request

TOKEN_FILE_VARIABLE = "DYNCTL_TOKEN_FILE"  # noqa: S105  a name, not a secret
TOKEN_HEADER = b"x-dynctl-token"
PAIR_HEADER = b"x-dynctl-pair"


class Pair(NamedTuple):
    """`prefill-0>decode-0`, or a worker alone (`prefill` is None)."""

    prefill: str | None
    worker: str


def read_token() -> bytes | None:
    """The run's token, from the file that DYNCTL_TOKEN_FILE names; None when it names none."""
    name = os.environ.get(TOKEN_FILE_VARIABLE)
    if not name:
        return None
    try:
        token = Path(name).read_bytes().strip()
    except OSError as error:
        raise UsageError(f"can't read the token file: {error.strerror}", where=name) from None
    if not token:
        raise UsageError("the token file is empty", where=name)
    return token


def directed_pair(request: Request, token: bytes | None) -> Pair | None:
    """The workers that the request names; None when it names none. Raises Failure without the right token."""
    value = request.header(PAIR_HEADER)
    if value is None:
        return None
    given = request.header(TOKEN_HEADER) or b""
    if token is None or not hmac.compare_digest(given, token):
        raise Failure(403, "choosing workers needs the run's own token", code="bad_token")
    first, arrow, second = (part.strip() for part in value.decode("latin-1").partition(">"))
    if arrow and not (first and second):
        raise Failure(400, f"not a pair of workers: {value.decode('latin-1')!r}", code="bad_pair")
    return Pair(first, second) if arrow else Pair(None, first)
