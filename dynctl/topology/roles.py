"""The `roles` section: which workers there are and what each gets."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, model_validator

from dynctl.topology.base import FREE_KEYS, Args, Env, Gpus, Seconds, Section, Texts, wrong

ROLE_NAMES = ("prefill", "decode", "worker")


class RestartRule(Section):
    """How often and how fast a worker that died is started again."""

    max: int = Field(
        default=3, ge=0, le=1000, description="Restarts of one worker before the run is degraded.", examples=[3]
    )
    backoff_s: Seconds = Field(
        default=1.0,
        alias="backoff",
        description="Wait before the first restart; doubled each time.",
        examples=["1s"],
        json_schema_extra={"default": "1s"},
    )
    cap_s: Seconds = Field(
        default=60.0,
        alias="cap",
        description="Longest wait before a restart.",
        examples=["60s"],
        json_schema_extra={"default": "60s"},
    )

    @model_validator(mode="after")
    def _ordered(self) -> RestartRule:
        if self.cap_s < self.backoff_s:
            raise wrong("is shorter than `backoff`", why="the wait grows from `backoff` up to `cap`", at=("cap",))
        return self


class Pin(Section):
    """Where one worker of the role sits, instead of where dynctl would put it."""

    gpus: Gpus | None = Field(
        default=None,
        description="This worker's GPUs: NVML indexes or UUIDs (GPU-..., MIG-...).",
        examples=[[4, 5, 6, 7]],
    )
    nics: Texts | None = Field(default=None, description="RDMA devices this worker may use.", examples=[["mlx5_4"]])


class RoleSpec(Section):
    """One role: so many workers, all alike."""

    workers: int = Field(default=1, ge=1, le=1024, description="How many workers this role has.", examples=[2])
    tp: int = Field(default=1, ge=1, le=128, description="Tensor-parallel size of a worker.", examples=[2])
    pp: int = Field(default=1, ge=1, le=128, description="Pipeline-parallel size of a worker.", examples=[1])
    dp: int = Field(default=1, ge=1, le=1024, description="Data-parallel size of a worker.", examples=[1])
    gpus: int | None = Field(
        default=None,
        ge=1,
        le=128,
        description="Short for `tp`: GPUs of a worker that is split by tensor parallelism only.",
        examples=[2],
    )
    args: Args = Field(
        default={},
        description="Engine flags without their dashes, verbatim.",
        examples=[{"gpu-memory-utilization": 0.9}],
    )
    env: Env = Field(
        default={},
        description="Environment variables of the workers, verbatim.",
        examples=[{"VLLM_LOGGING_LEVEL": "INFO"}],
    )
    restart: RestartRule = Field(
        default=RestartRule(),
        description="When a worker that died is started again.",
        examples=[{"max": 3}],
        json_schema_extra={"default": {}},
    )
    share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Fraction of one GPU that a worker takes, so that several fit on it.",
        examples=[0.45],
    )
    pin: Annotated[tuple[Pin, ...], Field(strict=False)] | None = Field(
        default=None,
        description="Seats chosen by hand, one for each worker.",
        examples=[[{"gpus": [0, 1], "nics": ["mlx5_0"]}]],
    )
    on: Texts | None = Field(
        default=None, description="Nodes this role may use, where there are several.", examples=[["b"]]
    )

    @property
    def gpus_per_worker(self) -> int:
        """GPUs that one worker takes: tp*pp*dp."""
        return self.tp * self.pp * self.dp

    @model_validator(mode="after")
    def _expand_gpus(self) -> RoleSpec:
        if self.gpus is None:
            return self
        if "tp" in self.model_fields_set and self.tp != self.gpus:
            raise wrong(
                f"says {self.gpus}, but `tp` says {self.tp}",
                why="`gpus` is short for `tp`; a worker's GPUs are tp*pp*dp",
                fix="keep only `tp`",
                at=("gpus",),
            )
        self.__dict__["tp"] = self.gpus
        return self

    @model_validator(mode="after")
    def _share_is_of_one_gpu(self) -> RoleSpec:
        if self.share is not None and self.gpus_per_worker > 1:
            raise wrong(
                f"is {self.share:g}, but a worker has {self.gpus_per_worker} GPUs",
                why="`share` is a part of one GPU; a worker's GPUs are tp*pp*dp",
                fix="leave `share` out, or tp, pp and dp at 1",
                at=("share",),
            )
        return self

    @model_validator(mode="after")
    def _pins_fit(self) -> RoleSpec:
        if self.pin is None:
            return self
        if len(self.pin) != self.workers:
            raise wrong(
                f"seats {len(self.pin)}, but there are {self.workers} workers",
                why="`pin` has one item for each worker",
                fix=f"write {self.workers} items, or leave `pin` out",
                at=("pin",),
            )
        seen: set[int | str] = set()
        for index, pin in enumerate(self.pin):
            if pin.gpus is None:
                continue
            if len(pin.gpus) != self.gpus_per_worker:
                raise wrong(
                    f"names {len(pin.gpus)} GPUs, but a worker has {self.gpus_per_worker}",
                    why="a worker's GPUs are tp*pp*dp",
                    fix="change the pin, or tp, pp or dp",
                    at=("pin", index, "gpus"),
                )
            if len(set(pin.gpus)) < len(pin.gpus) or (seen & set(pin.gpus) and self.share is None):
                raise wrong(
                    "names a GPU that is taken already",
                    why="a GPU belongs to one worker",
                    fix="name each GPU once",
                    at=("pin", index, "gpus"),
                )
            seen |= set(pin.gpus)
        return self


class Roles(Section):
    """`prefill` and `decode` for disaggregated serving, or `worker` alone for aggregated serving."""

    model_config = ConfigDict(
        json_schema_extra={
            **FREE_KEYS,
            "oneOf": [
                {"required": ["prefill", "decode"], "not": {"required": ["worker"]}},
                {"required": ["worker"], "not": {"anyOf": [{"required": ["prefill"]}, {"required": ["decode"]}]}},
            ],
        }
    )
    empty_is_default: ClassVar[bool] = False

    prefill: RoleSpec | None = Field(
        default=None, description="Workers that compute prompts.", examples=[{"workers": 1}]
    )
    decode: RoleSpec | None = Field(
        default=None, description="Workers that generate tokens.", examples=[{"workers": 1}]
    )
    worker: RoleSpec | None = Field(
        default=None, description="Workers that do both: aggregated serving.", examples=[{"workers": 1}]
    )

    @model_validator(mode="after")
    def _complete(self) -> Roles:
        have = tuple(name for name in ROLE_NAMES if getattr(self, name) is not None)
        if have in (("prefill", "decode"), ("worker",)):
            return self
        raise wrong(
            f"has {' and '.join(f'`{name}`' for name in have)}{' only' * (len(have) == 1)}"
            if have
            else "names no role",
            why="a topology has `prefill` and `decode` (disaggregated), or `worker` alone (aggregated)",
            fix=f"add `{'decode' if have == ('prefill',) else 'prefill'}`"
            if len(have) == 1
            else "keep one of the two kinds",
        )

    def present(self) -> tuple[tuple[str, RoleSpec], ...]:
        """The roles of this topology, by name: prefill before decode."""
        pairs = ((name, getattr(self, name)) for name in ROLE_NAMES)
        return tuple((name, role) for name, role in pairs if role is not None)
