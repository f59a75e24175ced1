"""Which worker gets a request: pure functions over a snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec

from dynctl.http.origin import Origin

MATCH = 0.5
"""Share of a prompt that a worker must have seen for cache-aware routing to prefer it, as in the SGLang router."""
SKEW_TOKENS = 16_384
SKEW_RATIO = 1.5
"""Load above which a pool counts as skewed: more than both beyond the least-loaded worker's."""


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the router knows it."""

    id: str
    role: str
    origin: Origin
    state: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy may look at. All policies are deterministic in it.

    `turn`: choices made in this pool before. `outstanding`: estimated tokens of the requests under way, by worker id.
    `tokens`, `matched`: of this request's prompt, and how many of them each worker has seen before. `session`: what
    names the client's session, if anything does. `dice`: two numbers in [0, 1).
    """

    candidates: tuple[Worker, ...]
    turn: int = 0
    outstanding: Mapping[str, int] = {}
    tokens: int = 0
    matched: Mapping[str, int] = {}
    session: bytes | None = None
    dice: tuple[float, float] = (0.0, 0.0)


Policy = Callable[[Snapshot], Worker | None]


def round_robin(snapshot: Snapshot) -> Worker | None:
    """Each candidate in turn; None where there is none."""
    if not snapshot.candidates:
        return None
    return snapshot.candidates[snapshot.turn % len(snapshot.candidates)]


def least_loaded(snapshot: Snapshot) -> Worker | None:
    """The candidate with the fewest tokens under way; of equals, each in turn."""
    count = len(snapshot.candidates)
    if not count:
        return None
    order = (snapshot.candidates[(snapshot.turn + step) % count] for step in range(count))
    return min(order, key=lambda worker: snapshot.outstanding.get(worker.id, 0))


def power_of_two(snapshot: Snapshot) -> Worker | None:
    """The less loaded of two different candidates drawn at random: near the best choice without herding on it
    (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001)."""
    candidates = snapshot.candidates
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    one = int(snapshot.dice[0] * len(candidates))
    other = (one + 1 + int(snapshot.dice[1] * (len(candidates) - 1))) % len(candidates)
    first, second = candidates[one], candidates[other]
    load = snapshot.outstanding
    return first if load.get(first.id, 0) <= load.get(second.id, 0) else second


def session(snapshot: Snapshot) -> Worker | None:
    """A session's requests go to one worker, by the highest of hashes (rendezvous): when a worker leaves only its own
    sessions move. Requests of no session go to the least loaded."""
    name = snapshot.session
    if name is None or not snapshot.candidates:
        return least_loaded(snapshot)
    return max(snapshot.candidates, key=lambda worker: _weight(worker.id, name))


def cache_aware(snapshot: Snapshot) -> Worker | None:
    """The worker that has seen most of the prompt, where that is half of it or more; the least loaded where none has,
    or where the pool is skewed by more than one prompt is worth."""
    chosen = least_loaded(snapshot)
    if chosen is None or not snapshot.matched or not snapshot.tokens:
        return chosen
    load = snapshot.outstanding
    best = max(snapshot.candidates, key=lambda worker: (snapshot.matched.get(worker.id, 0), -load.get(worker.id, 0)))
    if snapshot.matched.get(best.id, 0) < MATCH * snapshot.tokens:
        return chosen
    least, most = load.get(chosen.id, 0), load.get(best.id, 0)
    return chosen if most > least + SKEW_TOKENS and most > SKEW_RATIO * least else best


POLICIES: Mapping[str, Policy] = {
    "round-robin": round_robin,
    "least-loaded": least_loaded,
    "power-of-two": power_of_two,
    "session": session,
    "cache-aware": cache_aware,
    "kv-aware": cache_aware,
}


def _weight(worker_id: str, name: bytes) -> bytes:
    return hashlib.blake2b(name, key=worker_id.encode()[:64], digest_size=8).digest()
