"""The state that routing needs: turns, tokens under way, prompts seen. The policies themselves are pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from dynctl.frontend.ask import NOTHING, Ask, ask_of
from dynctl.frontend.body import Fields
from dynctl.frontend.kv_index import KvIndex
from dynctl.frontend.prefixes import Blocks, Prefixes
from dynctl.frontend.routing import POLICIES, Snapshot, Worker, round_robin
from dynctl.http.message import Request


class Load(dict[str, int]):
    """Tokens of the legs under way, by worker id, and how many choices were made in each pool."""

    def __init__(self) -> None:
        super().__init__()
        self._turns: dict[str, int] = {}

    def turn(self, role: str) -> int:
        """Choices made in that pool before; this one is counted."""
        turn = self._turns.get(role, 0)
        self._turns[role] = turn + 1
        return turn

    def add(self, worker: str, tokens: int) -> None:
        """So many more are under way there, or fewer."""
        left = self.get(worker, 0) + tokens
        if left > 0:
            self[worker] = left
        else:
            self.pop(worker, None)

    def of(self, workers: tuple[Worker, ...]) -> Mapping[str, int]:
        """Tokens under way in these workers, and perhaps in others."""
        return self


class Chooser:
    """Chooses workers by one of POLICIES. Round-robin looks at no request and counts nothing.

    `began` and `ended` frame each leg, with the same Ask. `outstanding`: tokens of the legs under way, by worker id.
    `index`: what the engines say of their caches, where the policy is to know. `load`, `tell`: of several processes
    that choose for one frontend; `tell` hears of the prompts that a worker has seen.
    """

    def __init__(
        self,
        name: str = "round-robin",
        *,
        chance: random.Random | None = None,
        load: Load | None = None,
        tell: Callable[[str, Blocks], None] | None = None,
    ) -> None:
        self._policy = POLICIES[name]
        self._plain = self._policy is round_robin
        self._prefixes = Prefixes() if name == "cache-aware" else None
        self.index = KvIndex() if name == "kv-aware" else None
        self._chance = chance or random.Random()  # noqa: S311
        self._tell = tell
        self.outstanding = Load() if load is None else load

    def ask(self, request: Request, fields: Fields | None) -> Ask:
        """What this policy wants to know of a request."""
        return (
            NOTHING
            if self._plain
            else ask_of(request, fields, prefixes=self._prefixes is not None, alike=self._tell is not None)
        )

    def choose(self, role: str, candidates: tuple[Worker, ...], ask: Ask = NOTHING) -> Worker | None:
        """The candidate that the request goes to; None where there is none."""
        turn = self.outstanding.turn(role)
        if self._plain:
            return round_robin(Snapshot(candidates=candidates, turn=turn))
        snapshot = Snapshot(
            candidates=candidates,
            turn=turn,
            outstanding=self.outstanding.of(candidates),
            tokens=ask.tokens,
            matched=self._matched(ask),
            session=ask.session,
            dice=(self._chance.random(), self._chance.random()),
        )
        return self._policy(snapshot)

    def seen(self, workers: tuple[Worker, ...], ask: Ask) -> int:
        """Tokens of the prompt that the one of these has seen that has seen most of it."""
        matched = self._matched(ask)
        return max((matched.get(worker.id, 0) for worker in workers), default=0)

    def _matched(self, ask: Ask) -> Mapping[str, int]:
        if self._prefixes is None or not ask.blocks:
            return ask.matched
        share = ask.tokens / len(ask.blocks)
        return {name: round(count * share) for name, count in self._prefixes.matched(ask.blocks).items()}

    def began(self, worker: Worker, ask: Ask) -> None:
        """A leg goes to the worker."""
        if self._plain:
            return
        self.outstanding.add(worker.id, _cost(worker, ask))
        if self._prefixes is not None and ask.blocks:
            self._prefixes.add(worker.id, ask.blocks)
            if self._tell is not None:
                self._tell(worker.id, ask.blocks)

    def saw(self, worker_id: str, blocks: Blocks) -> None:
        """Another process has sent that prompt there."""
        if self._prefixes is not None:
            self._prefixes.add(worker_id, blocks)

    def ended(self, worker: Worker, ask: Ask) -> None:
        """The leg is over, well or ill."""
        if self._plain:
            return
        self.outstanding.add(worker.id, -_cost(worker, ask))

    def gone(self, worker: Worker) -> None:
        """The worker is out of service: a new process under its name has seen nothing."""
        if self._prefixes is not None:
            self._prefixes.forget(worker.id)
        if self.index is not None:
            self.index.forget(worker.id)


def _cost(worker: Worker, ask: Ask) -> int:
    """Tokens of a leg: a prefill worker makes no answer."""
    return ask.tokens + (0 if worker.role == "prefill" else ask.output)
