"""A pair is proven by the bytes that moved and by what UCX said of them, never by an answer alone."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.fabric.ucx_log import ProtoTable
from dynctl.plan.values import KvShape
from dynctl.proof import pair as module
from dynctl.proof.client import ProofError
from dynctl.proof.pair import UNKNOWN_BLOCK_TOKENS, PairProver, check_bytes, expected_bytes
from dynctl.proof.prompt import prompt
from tests.unit.fabric.captures import CONNECT, REAL_CMA, REAL_PUSH, SELF
from tests.unit.proof.stub import PAIR, SHAPE, StubClient, tables_of, words

UNKNOWN = KvShape()
NO_BLOCKS = KvShape(bytes_per_token=100)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.05)
    monkeypatch.setattr(module, "POLL_S", 0.001)


def prover(
    client: StubClient,
    text: str = SELF + CONNECT + REAL_CMA,
    *,
    kv: KvShape = SHAPE,
    direction: str = "pull",
    tables: Callable[[str], list[ProtoTable]] | None = None,
) -> PairProver:
    found = tables_of(text)

    async def read(process: str) -> list[ProtoTable]:
        return tables(process) if tables else found

    return PairProver(client=client, kv=kv, direction=direction, tables=read)  # type: ignore[arg-type]


# bytes


@pytest.mark.parametrize(("kv", "tokens", "least", "most"), [
    (SHAPE, 1, 1_600, 1_600),
    (SHAPE, 16, 1_600, 1_600),
    (SHAPE, 17, 3_200, 3_200),
    (UNKNOWN, 100, 1, 0),
    (KvShape(block_tokens=16), 100, 1, 0),
    (NO_BLOCKS, 1000, (1000 - UNKNOWN_BLOCK_TOKENS) * 100, (1000 + UNKNOWN_BLOCK_TOKENS) * 100),
])  # fmt: skip
def test_what_a_prompt_should_move(kv: KvShape, tokens: int, least: int, most: int) -> None:
    assert expected_bytes(kv, tokens) == (least, most)


@pytest.mark.parametrize(("moved", "least", "most", "good"), [
    (100, 100, 100, True), (99, 100, 100, False), (101, 100, 100, False), (0, 0, 0, False), (1, 1, 0, True),
    (10**12, 1, 0, True), (0, -500, 500, False), (1, -500, 500, True), (501, -500, 500, False), (-5, 1, 0, False),
])  # fmt: skip
def test_what_is_accepted(moved: int, least: int, most: int, good: bool) -> None:
    if good:
        check_bytes("a -> b", moved, least, most)
    else:
        with pytest.raises(ProofError, match="KV bytes moved"):
            check_bytes("a -> b", moved, least, most)


@pytest.mark.parametrize(("least", "most", "words"), [
    (2000, 2000, "0 KV bytes moved, 2,000 expected"), (1000, 3000, "0 KV bytes moved, 1,000 to 3,000 expected"),
    (1, 0, "0 KV bytes moved, some expected"),
])  # fmt: skip
def test_the_error_gives_both_numbers(least: int, most: int, words: str) -> None:
    with pytest.raises(ProofError, match=f"prefill-0 -> decode-0: {words}"):
        check_bytes("prefill-0 -> decode-0", 0, least, most)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(0, 4096), st.integers(0, 512))
def test_no_transfer_at_all_is_never_accepted(tokens: int, per_token: int, block: int) -> None:
    least, most = expected_bytes(KvShape(bytes_per_token=per_token, block_tokens=block), tokens)
    with pytest.raises(ProofError):
        check_bytes("a -> b", 0, least, most)


# the proof


async def test_a_pair_is_proven_by_two_fresh_directed_requests() -> None:
    client = StubClient()
    found = await prover(client).prove(PAIR)
    assert [asked.route for asked in client.asked] == ["prefill-0>decode-0"] * 2
    assert len({asked.prompt for asked in client.asked}) == len({asked.salt for asked in client.asked}) == 2
    assert all(asked.max_tokens > 1 for asked in client.asked)
    each = SHAPE.transfer_bytes(words(client.asked[0]))
    assert (found.from_, found.to, found.verdict, found.bytes) == ("prefill-0", "decode-0", "shm", 2 * each)
    assert found.gigabytes_per_s == pytest.approx(1.0)
    assert "cma/memory" in found.evidence[0].line
    assert set(client.sampled) == {"decode-0"}


async def test_pushed_kv_is_counted_where_it_is_written() -> None:
    client = StubClient()
    found = await prover(client, REAL_PUSH, direction="push").prove(PAIR)
    assert set(client.sampled) == {"prefill-0"}
    assert found.verdict == "shm"


async def test_counters_may_come_late() -> None:
    assert (await prover(StubClient(lag=3)).prove(PAIR)).verdict == "shm"


async def test_an_answer_without_a_transfer_is_no_proof() -> None:
    with pytest.raises(ProofError, match="0 KV bytes moved"):
        await prover(StubClient(moves=lambda asked: 0)).prove(PAIR)


@pytest.mark.parametrize("share", [0.5, 2])
async def test_bytes_of_another_size_are_no_proof(share: float) -> None:
    with pytest.raises(ProofError, match="expected"):
        await prover(StubClient(moves=lambda asked: share * SHAPE.transfer_bytes(words(asked)))).prove(PAIR)


async def test_users_requests_may_move_bytes_at_the_same_time() -> None:
    busy = StubClient(moves=lambda asked: 3 * SHAPE.transfer_bytes(words(asked)))
    shared = msgspec.structs.replace(prover(busy), shared=True)
    assert (await shared.prove(PAIR)).verdict == "shm"
    too_few = msgspec.structs.replace(prover(StubClient(moves=lambda asked: 1)), shared=True)
    with pytest.raises(ProofError):
        await too_few.prove(PAIR)


@pytest.mark.parametrize("kv", [UNKNOWN, NO_BLOCKS])
async def test_where_the_weight_is_not_known_some_bytes_will_do(kv: KvShape) -> None:
    assert (await prover(StubClient(), kv=kv).prove(PAIR)).verdict == "shm"
    with pytest.raises(ProofError):
        await prover(StubClient(moves=lambda asked: 0), kv=kv).prove(PAIR)


async def test_silence_of_ucx_is_an_unknown_verdict() -> None:
    for text in ("", SELF, SELF + CONNECT):
        found = await prover(StubClient(), text).prove(PAIR)
        assert (found.verdict, found.evidence) == ("unknown", ())


async def test_evidence_may_come_late() -> None:
    calls: list[str] = []

    def tables(process: str) -> list[ProtoTable]:
        calls.append(process)
        return tables_of(REAL_CMA) if len(calls) > 4 else []

    assert (await prover(StubClient(), tables=tables).prove(PAIR)).verdict == "shm"


async def test_a_table_of_this_proof_outweighs_an_earlier_pairs() -> None:
    earlier, tcp = (
        tables_of(REAL_CMA),
        tables_of(REAL_CMA.replace("cma/memory", "tcp/lo    ").replace("cfg#1", "cfg#2")),
    )
    client = StubClient()

    def tables(process: str) -> list[ProtoTable]:
        return earlier + tcp if client.asked else earlier

    assert (await prover(client, tables=tables).prove(PAIR)).verdict == "tcp"


# prompts


def test_prompts_follow_from_their_seed() -> None:
    assert prompt("a", 50) == prompt("a", 50)
    assert prompt("a", 50) != prompt("b", 50)
    assert len(prompt("a", 50).split()) == 50
