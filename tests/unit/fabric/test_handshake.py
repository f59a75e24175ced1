"""Two nodes prove to each other that they know a token, without ever sending it."""

from __future__ import annotations

import msgspec
import pytest

from dynctl.errors import TransportError, UsageError
from dynctl.fabric.peer.address import DEFAULT_PORT, format_address, parse_address
from dynctl.fabric.peer.handshake import Handshake, Hello, Proof, Seal, check_token, wrong_token

TOKEN = "correct horse battery staple"


def two(token: str = TOKEN, other: str = TOKEN) -> tuple[Handshake, Handshake]:
    listen, connect = Handshake("listen", token, "1.0", b"l" * 32), Handshake("connect", other, "1.0", b"c" * 32)
    listen.meet(connect.own)
    connect.meet(listen.own)
    return listen, connect


def test_both_prove_that_they_know_the_token() -> None:
    listen, connect = two()
    assert listen.holds(connect.proof())
    assert connect.holds(listen.proof())


def test_another_token_proves_nothing() -> None:
    listen, connect = two(other=TOKEN + "r")
    assert not listen.holds(connect.proof())
    assert not connect.holds(listen.proof())


def test_a_proof_can_be_neither_reflected_nor_used_again() -> None:
    listen, connect = two()
    assert not listen.holds(listen.proof())
    again = Handshake("listen", TOKEN, "1.0", b"m" * 32)
    again.meet(connect.own)
    assert not again.holds(connect.proof())
    assert not listen.holds(Proof(mac=""))
    assert not listen.holds(Proof(mac="é"))


def test_the_token_is_never_sent() -> None:
    listen, connect = two()
    said = b"".join((listen.own, connect.own, msgspec.json.encode(listen.proof()), listen.seals()[0].close(b"{}")))
    assert TOKEN.encode() not in said
    assert TOKEN.encode().hex().encode() not in said


@pytest.mark.parametrize("data", [
    b"", b"GET / HTTP/1.1\r\n", b"{}", b"[]", b"\xff\xfe",
    b'{"magic":"other","protocol":1,"version":"1.0","nonce":"%s"}' % (b"00" * 32),
    b'{"magic":"dynctl check-rdma","protocol":1,"version":"1.0","nonce":"zz"}',
    b'{"magic":"dynctl check-rdma","protocol":1,"version":"1.0","nonce":"00"}',
])  # fmt: skip
def test_what_is_no_hello(data: bytes) -> None:
    with pytest.raises(TransportError, match="not `dynctl check-rdma`") as raised:
        Handshake("listen", TOKEN, "1.0", b"l" * 32).meet(data)
    assert raised.value.fix


def test_an_echo_is_no_peer() -> None:
    own = Handshake("listen", TOKEN, "1.0", b"l" * 32)
    with pytest.raises(TransportError, match="not `dynctl"):
        own.meet(own.own)


@pytest.mark.parametrize(("protocol", "version"), [(1, "2.0"), (2, "1.0")])
def test_another_version(protocol: int, version: str) -> None:
    hello = Hello(magic="dynctl check-rdma", protocol=protocol, version=version, nonce="00" * 32)
    with pytest.raises(TransportError, match="the peer runs dynctl") as raised:
        Handshake("listen", TOKEN, "1.0", b"l" * 32).meet(msgspec.json.encode(hello))
    assert version in raised.value.cause
    assert "same version" in (raised.value.fix or "")


def test_sealed_messages_come_whole_once_and_in_order() -> None:
    listen, connect = two()
    sending, receiving = connect.seals()[0], listen.seals()[1]
    first, second = sending.close(b"one"), sending.close(b"two")
    assert receiving.open(first) == b"one"
    with pytest.raises(TransportError, match="changed on the way"):
        receiving.open(first)
    fresh = Seal(listen.seals()[1]._key)
    with pytest.raises(TransportError):
        fresh.open(second)


@pytest.mark.parametrize("at", [0, 31, 32, -1])
def test_a_changed_byte_is_noticed(at: int) -> None:
    listen, connect = two()
    message = bytearray(connect.seals()[0].close(b"payload"))
    message[at] ^= 1
    with pytest.raises(TransportError):
        listen.seals()[1].open(bytes(message))


def test_the_two_directions_have_keys_of_their_own() -> None:
    _, connect = two()
    with pytest.raises(TransportError):
        connect.seals()[1].open(connect.seals()[0].close(b"mine"))


@pytest.mark.parametrize("token", ["", "  \n", "short", "x" * 15, "control\x00character-in-it"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_token(token)
    assert raised.value.exit_code == 2


def test_a_token_from_a_file_has_a_line_end() -> None:
    assert check_token(TOKEN + "\n") == TOKEN


def test_whoever_typed_the_token_has_made_the_mistake() -> None:
    assert wrong_token("connect").exit_code == 2
    assert wrong_token("listen").exit_code == 4


@pytest.mark.parametrize(("text", "expected"), [
    ("10.0.0.1", ("10.0.0.1", DEFAULT_PORT)),
    ("node-a:1234", ("node-a", 1234)),
    ("[fe80::1%eth0]:9", ("fe80::1%eth0", 9)),
    ("[::1]", ("::1", DEFAULT_PORT)),
    ("fe80::1", ("fe80::1", DEFAULT_PORT)),
])  # fmt: skip
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text, "--peer") == expected
    assert parse_address(format_address(*expected), "--peer") == expected


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:0", "a:65536", "a:x", "[::1", "[::1]9", "http://a", "a b", "a:１"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_address(text, "--peer")
    assert raised.value.fix
