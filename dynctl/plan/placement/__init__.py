"""Which worker sits where. Pure: the same topology and hardware always give the same seats."""

from dynctl.plan.placement.seats import place
from dynctl.plan.placement.wanted import WORKER_ROLES, roles

__all__ = ["WORKER_ROLES", "place", "roles"]
