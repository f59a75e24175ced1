"""API keys."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from dynctl.errors import UsageError
from dynctl.frontend.errors import Failure
from dynctl.http.message import Headers, Request

ENGINE_KEY_VARIABLE = "DYNCTL_ENGINE_KEY_FILE"
KEYS_VARIABLE = "DYNCTL_API_KEYS"


def read_keys(path: Path | None) -> tuple[bytes, ...]:
    """One key a line; empty lines and those that begin with # are left out. Raises UsageError."""
    if path is None:
        return ()
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("can't read the API keys", where=str(path), why=str(error)) from None
    lines = (line.strip() for line in text.splitlines())
    keys = tuple(line.encode() for line in lines if line and not line.startswith("#"))
    if not keys:
        raise UsageError("the API keys file holds no key", where=str(path), fix="write one key per line")
    return keys


def client_headers(path: str | None) -> dict[str, str]:
    """What dynctl's own clients send to a frontend whose keys are in that file: the first of them."""
    return {"authorization": f"Bearer {read_keys(Path(path))[0].decode()}"} if path else {}


def environment_keys() -> tuple[bytes, ...]:
    """The keys in DYNCTL_API_KEYS, parted by commas or white space."""
    return tuple(key.encode() for key in os.environ.get(KEYS_VARIABLE, "").replace(",", " ").split())


def engine_headers() -> Headers:
    """What engines on other nodes ask for, by the file that DYNCTL_ENGINE_KEY_FILE names; without it nothing."""
    name = os.environ.get(ENGINE_KEY_VARIABLE)
    if not name:
        return []
    try:
        return [(b"authorization", b"Bearer " + Path(name).read_bytes().strip())]
    except OSError as error:
        raise UsageError(f"can't read the engines' key: {error.strerror}", where=name) from None


def check_key(request: Request, keys: tuple[bytes, ...]) -> None:
    """Raises Failure(401) unless the request carries one of the keys. Every key is compared, in constant time."""
    if not keys:
        return
    scheme, _, given = (request.header(b"authorization") or b"").partition(b" ")
    matches = [hmac.compare_digest(given.strip(), key) for key in keys]
    if scheme.lower() != b"bearer" or not any(matches):
        challenge = [(b"www-authenticate", b"Bearer")]
        raise Failure(401, "a valid API key is needed", code="invalid_api_key", headers=challenge)
