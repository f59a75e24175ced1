"""A toy tokenizer and a toy model: one token per byte, and a next token that depends on every token before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_SPECIAL = {0: "<|endoftext|>", 1: "<|im_start|>", 2: "<|im_end|>"}
_FIRST_BYTE = len(_SPECIAL)
_PRIME, _MASK = 1099511628211, (1 << 64) - 1
_ALPHABET = b"abcdefghijklmnopqrstuvwxyz "


def encode(text: str) -> list[int]:
    """Token ids of `text`: its UTF-8 bytes, with the special tokens as one id each."""
    ids: list[int] = []
    while text:
        special = next((i for i, word in _SPECIAL.items() if text.startswith(word)), None)
        if special is not None:
            ids.append(special)
            text = text[len(_SPECIAL[special]) :]
            continue
        cut = text.find("<|", 1)
        piece, text = (text, "") if cut < 0 else (text[:cut], text[cut:])
        ids.extend(_FIRST_BYTE + byte for byte in piece.encode())
    return ids


def decode(ids: Iterable[int]) -> str:
    """Text of `ids`; ids beyond the bytes have none, as where the model's vocabulary exceeds the tokenizer's."""
    return bytes(i - _FIRST_BYTE for i in ids if _FIRST_BYTE <= i < _FIRST_BYTE + 256).decode(errors="replace")


def render_chat(messages: Sequence[dict[str, Any]]) -> list[int]:
    """Token ids of a conversation in the ChatML template, with the prompt for the assistant's turn."""
    turns = [f"<|im_start|>{m['role']}\n{_content(m.get('content'))}<|im_end|>\n" for m in messages]
    return encode("".join(turns) + "<|im_start|>assistant\n")


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


class Model:
    """The state after a sequence of tokens; `next` samples one and appends it."""

    def __init__(self, kv: Iterable[int], seed: int = 0) -> None:
        self._state = 14695981039346656037
        self._seed = seed
        for token in kv:
            self._append(token)

    def next(self, wrong: bool = False) -> int:
        """The next token. Greedy where the seed is 0; `wrong` gives any other one."""
        choice = ((self._state ^ (self._seed * _PRIME)) >> 17) % len(_ALPHABET)
        token = _FIRST_BYTE + _ALPHABET[(choice + wrong) % len(_ALPHABET)]
        self._append(token)
        return token

    def _append(self, token: int) -> None:
        self._state = ((self._state ^ (token + 1)) * _PRIME) & _MASK
