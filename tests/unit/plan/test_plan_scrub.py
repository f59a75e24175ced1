"""Secrets do not leave the machine, whatever form they come in; and what is no secret can still be read."""

from __future__ import annotations

import json
import time

import pytest

from dynctl.plan.scrub import Scrubber, found_secrets, is_secret_name, secret_values

S = "pl4nted.Secret~Value+0815/x="


@pytest.mark.parametrize(
    "line",
    [
        f"HF_TOKEN={S}",
        f"export OPENAI_API_KEY='{S}'",
        f'{{"hf_token": "{S}"}}',
        f"{{'api_key': ['{S}', '{S}2'], 'port': 8000}}",
        f"Namespace(api_key=['{S}'], model='m')",
        f"vllm serve m --api-key {S} --port 1",
        f"vllm serve m --api-key={S}",
        f"'--hf-token', '{S}'",
        f"Authorization: Bearer {S}",
        f'"authorization": "Bearer {S}"',
        f"GET / with bearer {S}",
        f"cookie: session={S}; other=1",
        f"password: {S}",
        f"DB_PASSWD={S}",
        "AWS_SECRET_ACCESS_KEY=" + S,
        "postgres://admin:pl4nted.Secret~Value+0815@db:5432/x",
        f"https://x.blob/y?se=1&sig={S}&sp=r",
        f"-----BEGIN RSA PRIVATE KEY-----\n{S}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{S}",
    ],
)
def test_what_looks_like_a_secret_is_hidden(line: str) -> None:
    hidden = Scrubber().text(line)
    assert "0815" not in hidden, hidden
    assert "***" in hidden


@pytest.mark.parametrize(
    "secret",
    [
        "hf_AbCdEfGhIjKlMnOpQrStUv",
        "sk-proj-0123456789abcdef_ghi",
        "nvapi-0123456789abcdefghij",
        "ghp_0123456789abcdefghijABCDE",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    ],
)
def test_issuers_forms_are_known(secret: str) -> None:
    assert secret not in Scrubber().text(f"it said {secret}, twice: ({secret})")


@pytest.mark.parametrize(
    "line",
    [
        "INFO max_num_batched_tokens=2048, eos_token_id=2, tokenizer_mode='auto', skip_tokenizer_init=False",
        "Avg prompt throughput: 12.1 tokens/s, Avg generation throughput: 3.4 tokens/s",
        "DYNCTL_TOKEN_FILE=/home/me/.local/state/dynctl/x/token",
        "0..inf | zero-copy | cma/memory",
        "http://127.0.0.1:20000/metrics and ucx://10.0.0.1:5/x",
        "hf_overrides={'a': 1}, api_keys_file=keys.txt, bos_token_id: 1",
        "12:01:02 prefill-0 loading weights",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert Scrubber().text(line) == line


def test_known_values_are_found_wherever_they_are() -> None:
    odd = 'a"quote\\and more'
    scrubber = Scrubber([S, odd, "abc"])
    assert S not in scrubber.text(f"it went to prefix{S}suffix")
    assert "quote" not in scrubber.text(json.dumps({"x": odd}))
    assert scrubber.text("abc is too short to be looked for") == "abc is too short to be looked for"


def test_documents_by_key_and_by_flag() -> None:
    document = {
        "env": {"HF_TOKEN": "x1", "UCX_TLS": "all", "DYNCTL_TOKEN_FILE": "/a/token", "PASSWORD": 1234},
        "argv": ["vllm", "--api-key", "x2", "--port", "80", "--api-key", "--other"],
        "args": {"api-key": ["x3", "x4"], "max-num-batched-tokens": 8192},
        "text": f"HF_TOKEN={S}",
        "eos_token_id": 2,
    }
    assert Scrubber().document(document) == {
        "env": {"HF_TOKEN": "***", "UCX_TLS": "all", "DYNCTL_TOKEN_FILE": "/a/token", "PASSWORD": "***"},
        "argv": ["vllm", "--api-key", "***", "--port", "80", "--api-key", "--other"],
        "args": {"api-key": ["***", "***"], "max-num-batched-tokens": 8192},
        "text": "HF_TOKEN=***",
        "eos_token_id": 2,
    }
    assert sorted(found_secrets(document)) == ["x1", "x2", "x3", "x4"]


def test_names() -> None:
    assert all(map(is_secret_name, ("HF_TOKEN", "token", "WANDB_API_KEY", "x-secret", "dbPassword", "private_key")))
    assert not any(map(is_secret_name, ("tokenizer", "max_tokens", "api_keys_file", "UCX_TLS", "key_value")))
    assert secret_values({"HF_TOKEN": "v", "HOME": "/x", "MY_SECRET": "/a/path"}) == ["v"]


@pytest.mark.parametrize("piece", ["x", "token", "-", "a=", "://", "'", "token ", "[", "bearer "])
def test_long_lines_take_no_long_time(piece: str) -> None:
    began = time.process_time()
    Scrubber([S]).text(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 10, "grows worse than in proportion"
