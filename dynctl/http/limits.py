"""What a server puts up with from a client."""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds. The write stall is how long a client may leave a full send buffer unread."""

    head_bytes: int = 64 * KIB
    body_bytes: int = 64 * MIB
    write_buffer_bytes: int = 256 * KIB
    head_s: float = 30.0
    body_stall_s: float = 30.0
    idle_s: float = 75.0
    write_stall_s: float = 300.0
    linger_s: float = 2.0


class Refusal(Exception):
    """A request that is answered by the core itself: status, a sentence, and the connection is closed after it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
