"""The wire protocol that dynctl relies on, said as tests of one `pair` of engines.

A test module makes the suite its own by subclassing `ContractSuite` and providing a fixture `pair`. Facts here were
seen with vLLM 0.32 and NIXL 1.5 on CPU workers.
"""

from __future__ import annotations

import re
from typing import Any

import httpx
import psutil
import pytest

from .client import (
    CHAT,
    COMPLETIONS,
    Body,
    chat,
    completion,
    eventually,
    hand_over,
    kv_bytes,
    metric,
    ok,
    output_ids,
    post,
    prefill_leg,
    prompt_ids,
    salt,
    stream,
    streamed_ids,
)
from .pair import BLOCK_SIZE, MAX_MODEL_LEN, Pair, members

_LENGTHS = [10, BLOCK_SIZE, BLOCK_SIZE + 1, 2 * BLOCK_SIZE, 300]


class ContractSuite:
    """Health and models, both legs, KV accounting, streams, errors, aborts, processes."""

    def test_health_and_models(self, pair: Pair) -> None:
        for worker in (pair.prefill, pair.decode):
            assert httpx.get(worker.url + "/health", timeout=30).status_code == 200
            models = httpx.get(worker.url + "/v1/models", timeout=30).json()
            assert models["object"] == "list"
            assert [m["id"] for m in models["data"]] == [pair.served_name]
            assert models["data"][0]["max_model_len"] == MAX_MODEL_LEN

    @pytest.mark.parametrize("name", [
        "vllm:nixl_bytes_transferred_sum", "vllm:nixl_bytes_transferred_count",
        "vllm:nixl_xfer_time_seconds_sum", "vllm:nixl_xfer_time_seconds_count",
        "vllm:nixl_num_failed_transfers_total", "vllm:nixl_num_kv_expired_reqs_total",
        "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
        "vllm:request_queue_time_seconds_sum", "vllm:request_prefill_time_seconds_sum",
        "vllm:inter_token_latency_seconds_bucket", "vllm:time_to_first_token_seconds_bucket",
    ])  # fmt: skip
    def test_metrics_are_there_before_any_request(self, pair: Pair, name: str) -> None:
        for worker in (pair.prefill, pair.decode):
            assert metric(worker, name, engine="0", model_name=pair.served_name) >= 0

    @pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
    def test_prefill_leg_says_where_its_kv_is(self, pair: Pair, path: str) -> None:
        body = completion(pair, prompt_ids(pair, 300, 1)) if path == COMPLETIONS else chat(pair)
        reply = prefill_leg(pair, path, body)
        params = reply["kv_transfer_params"]
        length = reply["usage"]["prompt_tokens"]
        assert (params["do_remote_prefill"], params["do_remote_decode"]) == (True, False)
        assert len(params["remote_block_ids"]) == 1
        assert len(params["remote_block_ids"][0]) == -(-length // BLOCK_SIZE)
        assert params["remote_num_tokens"] == length
        assert (params["remote_host"], params["remote_port"]) == ("127.0.0.1", pair.prefill.side_port)
        assert params["remote_request_id"].startswith(reply["id"])
        assert isinstance(params["remote_engine_id"], str)
        assert (params["tp_size"], params["dcp_size"], params["pp_size"]) == (1, 1, 1)
        assert reply["usage"]["completion_tokens"] == 1

    def test_other_replies_carry_no_hand_over(self, pair: Pair) -> None:
        assert ok(pair, pair.decode, COMPLETIONS, completion(pair, [60, 61]))["kv_transfer_params"] is None

    @pytest.mark.parametrize("length", _LENGTHS)
    def test_two_legs_give_the_tokens_of_one(self, pair: Pair, length: int) -> None:
        prompt = prompt_ids(pair, length, 100 + length)
        before = kv_bytes(pair)
        handed = ok(pair, pair.decode, COMPLETIONS, hand_over(pair, COMPLETIONS, completion(pair, prompt)))
        expected = before + -(-length // BLOCK_SIZE) * pair.block_bytes
        eventually(lambda: kv_bytes(pair) == expected, pair.patience_s, f"{expected} KV bytes pulled")
        alone = ok(pair, pair.decode, COMPLETIONS, completion(pair, prompt))
        assert output_ids(handed) == output_ids(alone)
        assert len(output_ids(alone)) == 8
        assert kv_bytes(pair) == expected

    def test_a_known_prefix_is_not_transferred_again(self, pair: Pair) -> None:
        body = completion(pair, prompt_ids(pair, 300, 2))
        ok(pair, pair.decode, COMPLETIONS, hand_over(pair, COMPLETIONS, body))
        before = kv_bytes(pair)
        ok(pair, pair.decode, COMPLETIONS, hand_over(pair, COMPLETIONS, body))
        expected = before + pair.block_bytes  # two full blocks are known, the third was never full
        eventually(lambda: kv_bytes(pair) == expected, pair.patience_s, f"{expected} KV bytes pulled")

    def test_streamed_completion(self, pair: Pair) -> None:
        prompt = prompt_ids(pair, 300, 3)
        leg = hand_over(pair, COMPLETIONS, completion(pair, prompt))
        chunks = stream(pair, pair.decode, COMPLETIONS, {**leg, "stream_options": {"include_usage": True}})
        first, last, usage = chunks[0], chunks[-2], chunks[-1]
        assert first["object"] == "text_completion"
        assert first["choices"][0]["prompt_token_ids"] == prompt
        assert all(c["choices"][0]["prompt_token_ids"] is None for c in chunks[1:-1])
        assert all(c["id"] == first["id"] for c in chunks)
        assert last["choices"][0]["finish_reason"] == "length"
        assert usage["choices"] == []
        assert usage["usage"] == {"prompt_tokens": 300, "completion_tokens": 8, "total_tokens": 308}
        alone = ok(pair, pair.decode, COMPLETIONS, completion(pair, prompt))
        assert streamed_ids(chunks) == output_ids(alone)
        assert "".join(c["choices"][0]["text"] for c in chunks[:-1]) == alone["choices"][0]["text"]

    def test_streamed_chat(self, pair: Pair) -> None:
        body = chat(pair)
        leg = hand_over(pair, CHAT, body)
        chunks = stream(pair, pair.decode, CHAT, {**leg, "stream_options": {"include_usage": True}})
        role, usage = chunks[0], chunks[-1]
        assert role["object"] == "chat.completion.chunk"
        assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert len(role["prompt_token_ids"]) == usage["usage"]["prompt_tokens"] > 2 * BLOCK_SIZE
        assert chunks[-2]["choices"][0]["finish_reason"] == "length"
        assert usage["choices"] == []
        alone = ok(pair, pair.decode, CHAT, {**body, "cache_salt": salt()})
        assert streamed_ids(chunks) == output_ids(alone)
        text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1])
        assert text == alone["choices"][0]["message"]["content"]

    def test_no_usage_chunk_unasked(self, pair: Pair) -> None:
        for path, body in ((COMPLETIONS, completion(pair, [60, 61])), (CHAT, chat(pair, words=1))):
            chunks = stream(pair, pair.decode, path, body)
            assert all(chunk["choices"] and "usage" not in chunk for chunk in chunks)

    def test_a_cut_stream_can_be_continued(self, pair: Pair) -> None:
        prompt = prompt_ids(pair, 200, 4)
        whole = output_ids(ok(pair, pair.decode, COMPLETIONS, completion(pair, prompt, max_tokens=12)))
        rest = ok(pair, pair.prefill, COMPLETIONS, completion(pair, prompt + whole[:5], max_tokens=7))
        assert output_ids(rest) == whole[5:]

    def test_swapped_hand_overs_give_other_tokens(self, pair: Pair) -> None:
        bodies = [completion(pair, prompt_ids(pair, 200, seed)) for seed in (5, 6)]
        right = [output_ids(ok(pair, pair.decode, COMPLETIONS, {**b, "cache_salt": salt()})) for b in bodies]
        params = [hand_over(pair, COMPLETIONS, b)["kv_transfer_params"] for b in bodies]
        swapped = [
            output_ids(ok(pair, pair.decode, COMPLETIONS, {**b, "kv_transfer_params": p}))
            for b, p in zip(bodies, reversed(params), strict=True)
        ]
        assert swapped[0] != right[0]
        assert swapped[1] != right[1]

    def test_request_id_is_the_callers(self, pair: Pair) -> None:
        name = salt()
        body = completion(pair, [60, 61])
        reply = post(pair, pair.decode, COMPLETIONS, body, **{"X-Request-Id": name}).json()
        assert reply["id"] == f"cmpl-{name}"

    @pytest.mark.parametrize(("change", "status", "kind", "param"), [
        ({"model": "nope"}, 404, "NotFoundError", "model"),
        ({"max_tokens": -1}, 400, "BadRequestError", "max_tokens"),
        ({"max_tokens": 100_000}, 400, "BadRequestError", "max_tokens"),
        ({"prompt": [60] * (MAX_MODEL_LEN + 1)}, 400, "BadRequestError", "input_tokens"),
        ({"prompt": None}, 400, "BadRequestError", "prompt"),
        ({"prompt": 5}, 400, "Bad Request", "body.prompt"),
        ({"cache_salt": ""}, 400, "BadRequestError", "cache_salt"),
        ({"temperature": -1}, 400, "BadRequestError", "temperature"),
        ({"stream_options": {"include_usage": True}}, 400, "BadRequestError", "stream_options"),
        ({"min_tokens": 9}, 400, "BadRequestError", None),
    ])  # fmt: skip
    def test_refused_requests(self, pair: Pair, change: Body, status: int, kind: str, param: str | None) -> None:
        response = post(pair, pair.decode, COMPLETIONS, completion(pair, [60, 61]) | change)
        _assert_error(response, status, kind, param)

    @pytest.mark.parametrize("raw", [b"{bad", b"", b"[1]"])
    def test_refused_bodies(self, pair: Pair, raw: bytes) -> None:
        _assert_error(post(pair, pair.decode, COMPLETIONS, raw), 400, "Bad Request", None)

    def test_chat_without_messages(self, pair: Pair) -> None:
        model = {"model": pair.served_name}
        _assert_error(post(pair, pair.decode, CHAT, model), 400, "Bad Request", "body.messages")
        _assert_error(post(pair, pair.decode, CHAT, {**model, "messages": []}), 400, "BadRequestError", None)

    @pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
    def test_unreachable_prefill_fails_the_request(self, pair: Pair, path: str) -> None:
        """Never a wrong answer: a 500, or an error event in a stream, whose status is 200 long before it fails."""
        body = completion(pair, prompt_ids(pair, 200, 7)) if path == COMPLETIONS else chat(pair)
        leg = hand_over(pair, path, body)
        leg["kv_transfer_params"] |= {"remote_engine_id": "00000000-0000-4000-8000-000000000000", "remote_port": 1}
        failed = metric(pair.decode, "vllm:nixl_num_failed_transfers_total")
        response = post(pair, pair.decode, path, leg)
        _assert_error(response, 500, "InternalServerError", None)
        eventually(
            lambda: metric(pair.decode, "vllm:nixl_num_failed_transfers_total") > failed,
            pair.patience_s,
            "a failed transfer counted",
        )
        assert _stream_error(pair, path, leg)["code"] == 500

    def test_an_aborted_stream_is_freed(self, pair: Pair) -> None:
        leg = hand_over(pair, COMPLETIONS, completion(pair, prompt_ids(pair, 200, 8), max_tokens=3000, ignore_eos=True))
        done = metric(pair.decode, "vllm:request_success_total", finished_reason="length")
        with httpx.stream(
            "POST", pair.decode.url + COMPLETIONS, json={**leg, "stream": True}, timeout=pair.patience_s
        ) as response:
            lines = response.iter_lines()  # kept: losing it would close the stream
            next(lines)
            eventually(lambda: _running(pair) == 1, pair.patience_s, "the request running")
        eventually(lambda: _running(pair) == 0, pair.patience_s, "the aborted request gone")
        assert metric(pair.decode, "vllm:request_success_total", finished_reason="length") == done

    def test_the_log_names_the_kv_path(self, pair: Pair) -> None:
        ok(pair, pair.decode, COMPLETIONS, hand_over(pair, COMPLETIONS, completion(pair, [60, 61, 62])))
        log = pair.decode.log.read_text(errors="replace")
        worker = next(p.pid for p in members(pair.decode.pid) if p.cmdline()[:1] == ["VLLM::Worker"])
        table = log[log.index("remote memory read by ucp_get") :].splitlines()
        row = re.compile(rf"\[\S+:{worker} *:\d+\] +\| 0..inf \| zero-copy +\| cma/memory +\|")
        assert any(row.search(line) for line in table[:8])
        assert "remote memory read" not in pair.prefill.log.read_text(errors="replace")

    def test_processes_and_their_session(self, pair: Pair) -> None:
        for worker in (pair.prefill, pair.decode):
            titles = {p.cmdline()[0]: p for p in members(worker.pid) if p.cmdline()}
            assert {"VLLM::EngineCore", "VLLM::Worker"} <= set(titles)
            assert worker.pid in [p.pid for p in titles["VLLM::Worker"].parents()]
            assert psutil.Process(worker.pid).is_running()


class PushSuite:
    """What is different where the prefill worker writes (NixlPushConnector): a fixture `push_pair`.

    Both legs must carry one X-Request-Id, or the decode worker waits for ever.
    """

    def test_two_legs_give_the_tokens_of_one(self, push_pair: Pair) -> None:
        pair = push_pair
        before = kv_bytes(pair)
        body = completion(pair, prompt_ids(pair, 300, 21))
        leg = hand_over(pair, COMPLETIONS, body)
        assert leg["kv_transfer_params"]["transfer_mode"] == "push"
        handed = ok(pair, pair.decode, COMPLETIONS, leg)
        alone = ok(pair, pair.decode, COMPLETIONS, {**body, "cache_salt": salt()})
        assert output_ids(handed) == output_ids(alone)
        expected = before + 3 * pair.block_bytes
        eventually(lambda: kv_bytes(pair) == expected, pair.patience_s, "the writer's bytes counted")
        assert metric(pair.decode, "vllm:nixl_bytes_transferred_sum") == 0

    def test_the_log_names_the_kv_path(self, push_pair: Pair) -> None:
        pair = push_pair
        ok(pair, pair.decode, COMPLETIONS, hand_over(pair, COMPLETIONS, completion(pair, [60, 61, 62])))
        for worker in (pair.prefill, pair.decode):
            log = worker.log.read_text(errors="replace")
            assert "remote memory read" not in log
            table = log.rpartition("intra-node cfg#1")[2]
            assert re.search(
                r"remote memory write by ucp_put\*.*\n(?:.*\n){3,4}.*\| 0\.\.inf \| zero-copy +\| cma/memory", table
            )


def _running(pair: Pair) -> float:
    return metric(pair.decode, "vllm:num_requests_running")


def _assert_error(response: httpx.Response, status: int, kind: str, param: str | None) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, status)
    assert error["message"]
    if param is not None:
        assert error["param"] == param


def _stream_error(pair: Pair, path: str, body: Body) -> dict[str, Any]:
    """The error object of a failing stream: its last event but [DONE], after a chat's first chunk."""
    chunks = stream(pair, pair.decode, path, body)
    assert len(chunks) == (2 if path == CHAT else 1)
    return dict(chunks[-1]["error"])
