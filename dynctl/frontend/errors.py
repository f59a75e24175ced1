"""Errors as OpenAI clients expect them."""

from __future__ import annotations

import msgspec

from dynctl.http.message import Headers

JSON = (b"content-type", b"application/json")

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable",
}


class Failure(Exception):
    """A request is answered with an error: status, and either the engine's own body or a message.

    `code` is a short word for programs. `headers` go along with the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        body: bytes | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.body = body if body is not None else error_body(status, message, code)
        self.headers = headers or []


def error_type(status: int) -> str:
    """OpenAI's `type` word for a status."""
    return _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")


def error_body(status: int, message: str, code: str | None = None) -> bytes:
    """`{"error": {"message", "type", "param": null, "code"}}`."""
    error = {"message": message, "type": error_type(status), "param": None, "code": code}
    return msgspec.json.encode({"error": error})


def refusal_body(status: int, message: str) -> tuple[bytes, bytes]:
    """How the HTTP core words its own refusals."""
    return b"application/json", error_body(status, message)


def error_event(message: str, code: str) -> bytes:
    """An error as a server-sent event, for a stream that has begun."""
    return b"data: " + error_body(502, message, code) + b"\n\n"


def engine_error(status: int, body: bytes, who: str) -> bytes:
    """The engine's error body: verbatim when it has OpenAI's shape, else wrapped. `who` names leg and worker."""
    message = _message(body)
    if message is None:
        return body
    return error_body(status, f"{who} answered {status}: {message}" if message else f"{who} answered {status}")


def _message(body: bytes) -> str | None:
    """What a body of another shape says in one line; None when it has OpenAI's shape."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return " ".join(body[:500].decode("utf-8", "replace").split())
    if not isinstance(document, dict):
        return str(document)[:500]
    error = document.get("error")
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return None
    for key in ("message", "detail", "error"):
        if isinstance(document.get(key), str):
            return str(document[key])
    return msgspec.json.encode(document)[:500].decode("utf-8", "replace")
