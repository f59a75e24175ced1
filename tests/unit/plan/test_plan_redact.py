"""Secrets of a topology's env are neither shown nor kept with the plan."""

from __future__ import annotations

import msgspec

from dynctl.plan.redact import HIDDEN, restore, split
from tests.unit.plan.machines import CPU_1P1D, made

ENV = "{HF_TOKEN: hf_abc, TOKENIZERS_PARALLELISM: no, KEY_TOKEN_FILE: /run/key}"


def test_secret_values_are_hidden_and_come_back() -> None:
    """What is split off and restored is the plan again; a tokenizer's setting and a path are no secrets."""
    plan = made(CPU_1P1D, f"roles.prefill.env={ENV}")
    shown, secrets = split(plan)
    assert secrets == {"prefill-0": {"HF_TOKEN": "hf_abc"}}
    assert b"hf_abc" not in msgspec.json.encode(shown)
    assert shown.process("prefill-0").env["HF_TOKEN"] == HIDDEN
    assert shown.process("prefill-0").env["TOKENIZERS_PARALLELISM"] == "no"
    assert restore(shown, secrets) == plan
