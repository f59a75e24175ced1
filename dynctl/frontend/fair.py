"""The order of requests that wait to be admitted: pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Each tenant in turn, and each tenant's own first come first served: who sends much waits behind himself only."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, tenant: bytes, item: T) -> None:
        """It waits from now on."""
        self._waiting.setdefault(tenant, deque()).append(item)
        self._count += 1

    def take(self) -> T | None:
        """Whose turn it is, taken out; None where nobody waits. Its tenant's turn comes again after all others'."""
        if not self._waiting:
            return None
        tenant, queue = self._waiting.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._waiting[tenant] = queue
        self._count -= 1
        return item

    def remove(self, tenant: bytes, item: T) -> bool:
        """It waits no longer; False where it does not wait."""
        queue = self._waiting.get(tenant)
        if queue is None or item not in queue:
            return False
        queue.remove(item)
        self._count -= 1
        if not queue:
            del self._waiting[tenant]
        return True
