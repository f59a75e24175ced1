"""Which workers have requests under way: a worker that is taken out can be stopped once it has none."""

from __future__ import annotations

from collections import Counter

from dynctl.frontend.job import Job


class Busy:
    """The jobs under way. A prefill worker has a part in its job until content comes: decode fetches the KV from it."""

    def __init__(self) -> None:
        self._jobs: set[Job] = set()

    def add(self, job: Job) -> None:
        """It begins."""
        self._jobs.add(job)

    def remove(self, job: Job) -> None:
        """It has ended."""
        self._jobs.discard(job)

    def counts(self) -> dict[str, int]:
        """Jobs by worker, of those that have any."""
        found: Counter[str] = Counter()
        for job in self._jobs:
            if job.decode:
                found[job.decode] += 1
            if job.prefill and job.spans.first_content is None:
                found[job.prefill] += 1
        return dict(found)
