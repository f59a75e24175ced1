"""The two legs' request bodies, made from the client's bytes without decoding more than the top level."""

from __future__ import annotations

import msgspec

from dynctl.frontend.errors import Failure

Fields = dict[str, msgspec.Raw]
"""The top-level members of a JSON object, their values still as bytes."""

KV_PARAMS = "kv_transfer_params"
PREFILL_PARAMS = msgspec.Raw(
    b'{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,'
    b'"remote_block_ids":null,"remote_host":null,"remote_port":null}'
)
"""What asks a vLLM prefill worker to keep the prompt's KV blocks for a decode worker (vLLM's NIXL connector)."""

_TRUE, _FALSE, _NULL, _ONE = msgspec.Raw(b"true"), msgspec.Raw(b"false"), msgspec.Raw(b"null"), msgspec.Raw(b"1")
_COUNTS, _SWITCHES, _EXTRAS = ("n", "best_of"), ("echo", "use_beam_search"), ("prompt_logprobs", "prompt_embeds")
_SEVERAL = frozenset((*_COUNTS, *_SWITCHES, *_EXTRAS, "prompt"))
"""Members without which a request is one sequence."""
_DECODER = msgspec.json.Decoder(Fields)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ENCODER = msgspec.json.Encoder()


def parse_fields(body: bytes) -> Fields:
    """The members of the client's JSON object. Raises Failure(400) for anything else, and for KV parameters in it.

    JSON is UTF-8 (RFC 8259, 8.1), in values, too.
    """
    try:
        if not body.isascii():
            body.decode()  # values are passed on as they are, and the decoder looks into none
        fields = _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Failure(400, f"the request body is not a JSON object: {error}", code="invalid_json") from None
    if KV_PARAMS in fields:
        raise Failure(400, f"'{KV_PARAMS}' is set by the server, not by clients", code="reserved_field")
    return fields


def one_sequence(fields: Fields) -> bool:
    """Whether the request is one prompt and one continuation, so that its KV cache can be handed over.

    Not so: n or best_of above 1, beam search, echo, prompt_logprobs, prompt embeddings, several prompts.
    """
    if _SEVERAL.isdisjoint(fields):
        return True
    for name in _COUNTS:
        if fields.get(name, _NULL) not in (_NULL, _ONE):
            return False
    for name in _SWITCHES:
        if fields.get(name, _NULL) not in (_NULL, _FALSE):
            return False
    for name in _EXTRAS:
        if fields.get(name, _NULL) != _NULL:
            return False
    return _one_prompt(bytes(fields.get("prompt", _NULL)))


def _one_prompt(prompt: bytes) -> bool:
    if not prompt.startswith(b"["):
        return True
    inner = prompt[1:64].lstrip()
    if inner and inner[0] in b"0123456789-":
        return True  # token ids of one prompt
    return len(_LIST.decode(prompt)) <= 1


def prefill_body(fields: Fields) -> bytes:
    """Leg one: the client's members, not streamed, one token, asking to keep the KV blocks."""
    leg = fields.copy()
    leg.pop("stream_options", None)
    leg.pop("min_tokens", None)
    leg["stream"] = _FALSE
    leg["max_tokens"] = _ONE
    if "max_completion_tokens" in leg:
        leg["max_completion_tokens"] = _ONE
    leg[KV_PARAMS] = PREFILL_PARAMS
    return _ENCODER.encode(leg)


def decode_body(body: bytes, params: bytes) -> bytes:
    """Leg two: the client's bytes with the prefill worker's parameters put in as the last member, verbatim."""
    end = body.rindex(b"}")
    head = body[:end].rstrip()
    comma = b"" if head.endswith(b"{") else b","  # only an empty object has its brace there
    return b"".join((head, comma, b'"', KV_PARAMS.encode(), b'":', params, b"}"))
