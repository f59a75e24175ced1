"""Token verification: what counts as the same, and what must not be able to pass."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.proof import pair as module
from dynctl.proof.client import Completion, ProofError
from dynctl.proof.verify import OUTPUT_TOKENS, PROMPTS, Divergence, first_divergence, verify_pair
from tests.unit.proof.stub import PAIR, SHAPE, Asked, StubClient, words

Top = tuple[dict[str, float], ...]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.05)
    monkeypatch.setattr(module, "POLL_S", 0.001)


def said(*tokens: int, top: Top = ()) -> Completion:
    return Completion(prompt_tokens=9, token_ids=tokens, top_logprobs=top)


# one prompt


@pytest.mark.parametrize(("handed", "alone", "position", "one", "other"), [
    (said(1, 2, 3), said(1, 2, 4), 2, 3, 4),
    (said(9, 2, 3), said(1, 2, 3), 0, 9, 1),
    (said(1, 2), said(1, 2, 3), 2, None, 3),
    (said(1, 2, 3), said(1, 2), 2, 3, None),
    (said(), said(1), 0, None, 1),
    (said(1), said(), 0, None, None),  # decode alone said nothing: nothing was compared
    (said(), said(), 0, None, None),
])  # fmt: skip
def test_divergences(handed: Completion, alone: Completion, position: int, one: int | None, other: int | None) -> None:
    found = first_divergence(4, handed, alone)
    assert found is not None
    assert (found.prompt, found.position, found.disaggregated, found.alone) == (4, position, one, other)


def test_the_same_tokens_are_the_same() -> None:
    assert first_divergence(0, said(1, 2, 3), said(1, 2, 3)) is None


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_only_equal_runs_have_no_divergence(alone: list[int], handed: list[int]) -> None:
    found = first_divergence(0, said(*handed), said(*alone))
    assert (found is None) == (alone == handed)
    if found:
        assert alone[: found.position] == handed[: found.position]


@pytest.mark.parametrize(("handed", "alone", "gap"), [
    (({"a": -0.1, "b": -0.2},), ({"b": -0.1, "a": -0.35},), 0.25),  # alone liked its own token this much better
    (({"a": -0.1},), ({"b": -0.1},), None),  # the other's token is not among the likeliest
    ((), ({"b": -0.1},), None),
    (({"a": -0.1},), (), None),
    (({},), ({},), None),
])  # fmt: skip
def test_how_close_a_call_it_was(handed: Top, alone: Top, gap: float | None) -> None:
    found = first_divergence(0, said(1, top=handed), said(2, top=alone))
    assert found is not None
    assert found.logprob_gap == (gap if gap is None else pytest.approx(gap))


def test_in_words() -> None:
    plain = Divergence(prompt=1, position=7, disaggregated=12, alone=15)
    assert plain.text() == "prompt 1: token 7 is 12 through prefill -> decode and 15 by decode alone"
    assert (
        Divergence(prompt=1, position=7, disaggregated=12, alone=15, logprob_gap=0.01249)
        .text()
        .endswith(", log-probability gap 0.012")
    )


# a pair


async def verify(client: StubClient) -> tuple[Divergence, ...]:
    found = await verify_pair(client, PAIR, SHAPE, mover="decode-0")  # type: ignore[arg-type]
    return found.divergences


async def test_the_same_prompts_go_both_ways_each_with_a_salt_of_its_own() -> None:
    client = StubClient()
    found = await verify_pair(client, PAIR, SHAPE, mover="decode-0")  # type: ignore[arg-type]
    handed, alone = client.asked[:PROMPTS], client.asked[PROMPTS:]
    assert {asked.route for asked in handed} == {"prefill-0>decode-0"}
    assert {asked.route for asked in alone} == {"decode-0"}
    assert [asked.prompt for asked in handed] == [asked.prompt for asked in alone]
    assert len({asked.prompt for asked in handed}) == PROMPTS
    assert not {asked.salt for asked in handed} & {asked.salt for asked in alone}
    assert all(words(asked) >= 2 * SHAPE.block_tokens for asked in handed)
    assert (found.prompts, found.tokens, found.divergences) == (PROMPTS, PROMPTS * OUTPUT_TOKENS, ())
    assert found.kv_bytes == PROMPTS * SHAPE.transfer_bytes(words(handed[0]))
    assert found.pair == "prefill-0 -> decode-0"


async def test_kv_of_another_request_is_found_out() -> None:
    """Two requests whose transfer parameters were swapped: each decodes from the other's KV."""
    client = StubClient()

    def swapped(asked: Asked) -> Completion:
        if ">" not in asked.route:
            return client.honest(asked)
        honest = client.honest(asked)
        return Completion(prompt_tokens=honest.prompt_tokens, token_ids=tuple(t + 1 for t in honest.token_ids))

    client.answer = swapped
    assert [found.position for found in await verify(client)] == [0] * PROMPTS


async def test_a_prefix_hit_can_not_pass_for_a_transfer() -> None:
    with pytest.raises(ProofError, match="0 KV bytes moved"):
        await verify(StubClient(moves=lambda asked: 0))


async def test_decode_alone_must_not_move_kv() -> None:
    with pytest.raises(ProofError, match=r"decode-0 alone: .* KV bytes moved, none expected"):
        await verify(StubClient(moves=lambda asked: SHAPE.transfer_bytes(words(asked))))


async def test_divergences_are_weighed_only_where_that_is_asked_for() -> None:
    client = StubClient()
    client.answer = lambda asked: client.honest(asked._replace(max_tokens=5 if ">" in asked.route else 6))
    exact = await verify_pair(client, PAIR, SHAPE, mover="decode-0", weigh=False)  # type: ignore[arg-type]
    assert len(client.asked) == 2 * PROMPTS
    assert {asked.logprobs for asked in client.asked} == {None}
    weighed = await verify_pair(client, PAIR, SHAPE, mover="decode-0")  # type: ignore[arg-type]
    assert len(client.asked) == 6 * PROMPTS
    assert len(exact.divergences) == len(weighed.divergences) == PROMPTS
    assert len({asked.salt for asked in client.asked}) == 6


async def test_one_prompt_too_few_is_found_out() -> None:
    sent: list[Asked] = []

    def moves(asked: Asked) -> float:
        sent.append(asked)
        return SHAPE.transfer_bytes(words(asked)) if ">" in asked.route and len(sent) > 1 else 0

    with pytest.raises(ProofError, match="expected"):
        await verify(StubClient(moves=moves))


async def test_counters_may_come_late() -> None:
    assert await verify(StubClient(lag=4)) == ()


async def test_the_first_divergence_of_each_prompt_is_kept() -> None:
    client = StubClient()

    def flaky(asked: Asked) -> Completion:
        honest = client.honest(asked)
        if ">" not in asked.route:
            return honest
        return Completion(
            prompt_tokens=honest.prompt_tokens,
            token_ids=(*honest.token_ids[:5], 1000, *honest.token_ids[6:]),
            top_logprobs=(*honest.top_logprobs[:5], {"other": -0.1}, *honest.top_logprobs[6:]),
        )

    client.answer = flaky
    found = await verify(client)
    assert [(one.prompt, one.position, one.disaggregated) for one in found] == [(at, 5, 1000) for at in range(PROMPTS)]
    assert all(one.logprob_gap == pytest.approx(2.4) for one in found)
