"""A stream that is carried on by another worker: what is noted from its beginning, and the request that goes on."""

from __future__ import annotations

import msgspec

from dynctl.frontend.job import Job
from dynctl.frontend.legs import Legs
from dynctl.frontend.resume import COMPLETIONS, continuation, limit_of, transcript_for, with_ids
from dynctl.frontend.routing import Worker


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


_MODELS = msgspec.json.Decoder(_Models)


def follow(job: Job) -> bool:
    """Ask for token ids along with the stream, where it could be carried on."""
    if job.fields is None:
        return False
    job.transcript = transcript_for(job.request.path.encode(), job.fields)
    if job.transcript is None:
        return False
    job.asked = job.fields
    job.body = with_ids(job.fields)
    return True


async def carry_on(job: Job, legs: Legs, worker: Worker) -> bool:
    """Make the job's legs those that go on with its stream. `worker` is asked for the model's length where the client
    set no limit; False where it does not say."""
    transcript, path = job.transcript, job.request.path.encode()
    if transcript is None or job.asked is None:
        return False
    limit = limit_of(path, job.asked)
    if limit is None:
        length = _length(await legs.models(worker, job), job.asked)
        if length is None:
            return False
        limit = length - len(transcript.prompt or ())
    legs.carried_on(job)
    transcript.carry_on()
    job.target = COMPLETIONS
    job.fields = continuation(path, job.asked, transcript, limit)
    job.body = msgspec.json.encode(job.fields)
    return True


def _length(reply: bytes, asked: dict[str, msgspec.Raw]) -> int | None:
    """`max_model_len` of the model that was asked for."""
    try:
        models = _MODELS.decode(reply).data
        name = msgspec.json.decode(asked["model"]) if "model" in asked else None
    except (msgspec.DecodeError, RecursionError):
        return None
    return next((model.max_model_len for model in models if name in (None, model.id)), None)
