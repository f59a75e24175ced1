"""Who may speak: both ends prove that they know the token, which itself never crosses the wire. Pure.

Each sends a hello with a nonce of its own. The one that connects proves first, so that a stranger gets nothing to guess
at from the listener. A proof is HMAC-SHA256 over the prover's side and both hellos, so that it can't be reflected or
used twice. From both nonces comes a key by which every later message is sealed, with its sender and number.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec

from dynctl.errors import DynctlError, TransportError, UsageError

PROTOCOL = 1
MAGIC = "dynctl check-rdma"
HELLO_BYTES = 4096
"""No message may be longer before both ends have proven themselves."""
MESSAGE_BYTES = 8 << 20
MAC_BYTES = 32
SHORTEST_TOKEN = 16

Side = Literal["listen", "connect"]
OTHER: dict[Side, Side] = {"listen": "connect", "connect": "listen"}


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first message of each side. `nonce`: 32 random bytes in hexadecimal."""

    magic: str
    protocol: int
    version: str
    nonce: str


class Proof(msgspec.Struct, frozen=True, kw_only=True, tag="proof"):
    """That the sender knows the token."""

    mac: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """That the listener does not take the proof."""


class Purpose:
    """What a link is for. Both ends must want the same, and say in its words what is wrong. This one: `check-rdma`."""

    magic = MAGIC

    def wrong_token(self, side: Side) -> DynctlError:
        """The two tokens differ."""
        return wrong_token(side)

    def not_dynctl(self, data: bytes = b"") -> DynctlError:
        """What answered, with `data` if with anything, is something else."""
        return not_dynctl(data)

    def other_version(self, hello: Hello, own: str) -> DynctlError:
        """Both are dynctl, of versions that may not understand each other."""
        return other_version(hello, own)


class Handshake:
    """The state of one side: its hello, the peer's, and what both must prove."""

    def __init__(self, side: Side, token: str, version: str, nonce: bytes, purpose: Purpose | None = None) -> None:
        self.side, self.version, self.purpose = side, version, purpose or Purpose()
        hello = Hello(magic=self.purpose.magic, protocol=PROTOCOL, version=version, nonce=nonce.hex())
        self.own = msgspec.json.encode(hello)
        self._token = token.encode()
        self._peer = b""

    def meet(self, data: bytes) -> None:
        """Takes the peer's hello. A DynctlError of the purpose if it is none, or of another version."""
        try:
            hello = msgspec.json.decode(data, type=Hello)
            nonce = bytes.fromhex(hello.nonce)
        except (msgspec.DecodeError, ValueError) as error:
            raise self.purpose.not_dynctl(data) from error
        if hello.magic != self.purpose.magic or len(nonce) != 32 or data == self.own:
            raise self.purpose.not_dynctl(data)
        if (hello.protocol, hello.version) != (PROTOCOL, self.version):
            raise self.purpose.other_version(hello, self.version)
        self._peer = data

    def proof(self) -> Proof:
        """What this side sends to show that it knows the token."""
        return Proof(mac=self._mac(self.side).hex())

    def holds(self, proof: Proof) -> bool:
        """Whether the peer knows the token."""
        return hmac.compare_digest(self._mac(OTHER[self.side]).hex().encode(), proof.mac.encode())

    def seals(self) -> tuple[Seal, Seal]:
        """The seals of what this side sends, and of what it receives."""
        return Seal(self._key(self.side)), Seal(self._key(OTHER[self.side]))

    def _mac(self, prover: Side) -> bytes:
        return hmac.digest(self._token, b"prove " + self._transcript(prover), hashlib.sha256)

    def _key(self, sender: Side) -> bytes:
        return hmac.digest(self._token, b"seal " + self._transcript(sender), hashlib.sha256)

    def _transcript(self, side: Side) -> bytes:
        listen, connect = (self.own, self._peer) if self.side == "listen" else (self._peer, self.own)
        return b"\0".join((side.encode(), listen, connect))


class Seal:
    """Messages of one direction: each carries a code over its number and its content."""

    def __init__(self, key: bytes) -> None:
        self._key, self._number = key, 0

    def close(self, payload: bytes) -> bytes:
        """The message with its code before it."""
        return self._code(payload) + payload

    def open(self, message: bytes) -> bytes:
        """The content. TransportError if it was changed, repeated or left out on the way."""
        code, payload = message[:MAC_BYTES], message[MAC_BYTES:]
        if not hmac.compare_digest(code, self._code(payload)):
            raise TransportError(
                "a message of the peer was changed on the way",
                why="its code does not fit its content: something between the two nodes rewrites the connection",
                fix="connect directly, without a proxy in between",
            )
        return payload

    def _code(self, payload: bytes) -> bytes:
        self._number += 1
        return hmac.digest(self._key, self._number.to_bytes(8, "big") + payload, hashlib.sha256)


def check_token(token: str) -> str:
    """The token, stripped. UsageError for one that is empty or short enough to be guessed."""
    token = token.strip()
    if len(token) < SHORTEST_TOKEN or not token.isprintable():
        raise UsageError(
            "this is not a token of `dynctl check-rdma --listen`",
            why=f"it has {len(token)} characters, a token has {SHORTEST_TOKEN} or more" if token else "it is empty",
            fix="take the token that the listener printed",
        )
    return token


def wrong_token(side: Side) -> DynctlError:
    """The two tokens differ. Whoever typed one in has made the mistake: exit 2 there, 4 at the listener."""
    if side == "connect":
        return UsageError(
            "the listener refuses this token", fix="give the token that it printed, by --token-file or DYNCTL_TOKEN"
        )
    return TransportError(
        "the peer has another token", fix="start both ends again, with the token printed here at the other end"
    )


def it_said(data: bytes) -> str:
    """What a stranger said, in printable words."""
    seen = data[:60].decode("ascii", "backslashreplace").replace("\n", "\\n").replace("\r", "\\r")
    return f"it said {seen!r}" if data else "it said nothing that dynctl says"


def not_dynctl(data: bytes = b"") -> TransportError:
    """What answered is something else."""
    return TransportError(
        "the peer is not `dynctl check-rdma`",
        why=it_said(data),
        fix="start `dynctl check-rdma --listen ADDRESS` on the other node, and name its address and port here",
    )


def other_version(hello: Hello, own: str) -> TransportError:
    """Both are dynctl, of versions that may not understand each other."""
    return TransportError(
        f"the peer runs dynctl {hello.version[:40]} (protocol {hello.protocol}), this node {own} (protocol {PROTOCOL})",
        fix="install the same version on both nodes",
    )
