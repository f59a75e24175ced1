"""A plan as systemd units: one service for each process, and a target that they are parts of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dynctl.engines.spec import EPOCH
from dynctl.export.launches import EPOCH_VARIABLE, KEY_FILE, Launch, key_environment, launches, others_ready
from dynctl.plan.values import Plan

_WORDS = str.maketrans({"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t"})


def units(plan: Plan, node: str | None = None) -> Mapping[str, str]:
    """The text of every unit by its file name, for one node (by default the plan's own)."""
    own = launches(plan, node)
    found = {f"{_name(plan, one)}.service": "\n".join(_service(plan, one)) + "\n" for one in own}
    found[f"{_target(plan)}.target"] = "\n".join(_whole(plan, own)) + "\n"
    return found


def _target(plan: Plan) -> str:
    return f"dynctl-{plan.name}"


def _name(plan: Plan, launch: Launch) -> str:
    return f"{_target(plan)}-{launch.id}"


def _whole(plan: Plan, own: tuple[Launch, ...]) -> Iterator[str]:
    services = " ".join(f"{_name(plan, one)}.service" for one in own)
    yield "[Unit]"
    yield f"Description=dynctl {plan.name}"
    yield f"Wants={services}"
    yield "[Install]"
    yield "WantedBy=multi-user.target"


def _service(plan: Plan, launch: Launch) -> Iterator[str]:
    after = " ".join(f"{_target(plan)}-{other}.service" for other in launch.after)
    limits = launch.restart
    yield "[Unit]"
    yield f"Description=dynctl {plan.name}: {launch.id}"
    yield f"PartOf={_target(plan)}.target"
    yield f"After=network-online.target {after}".rstrip()
    yield "Wants=network-online.target"
    # as often as the restart rule says; dynctl's own count begins anew after `cap` in good health
    yield f"StartLimitBurst={limits.max + 1}"
    yield f"StartLimitIntervalSec={round((limits.max + 1) * (limits.cap_s + plan.ready.timeout_s))}"
    yield "[Service]"
    yield "Type=exec"
    yield from _environment(plan, launch)
    if launch.role == "frontend":
        yield from (_wait("ExecStartPre", url) for url in others_ready(plan, launch.node))
    yield f"ExecStart={_command(launch)}"
    if launch.ready:
        yield _wait("ExecStartPost", launch.ready)
    yield f"TimeoutStartSec={round(plan.ready.timeout_s)}"
    yield f"TimeoutStopSec={round(launch.grace_s)}"
    yield "KillMode=mixed"
    yield f"Restart={'always' if limits.max else 'no'}"
    yield f"RestartSec={limits.backoff_s:g}"
    yield "LimitMEMLOCK=infinity"
    if launch.cpus:
        yield f"CPUAffinity={launch.cpus.replace(',', ' ')}"
    if len(launch.memory_nodes) == 1:
        yield "NUMAPolicy=preferred"
        yield f"NUMAMask={launch.memory_nodes[0]}"
    yield "[Install]"
    yield f"WantedBy={_target(plan)}.target"


def _environment(plan: Plan, launch: Launch) -> Iterator[str]:
    """Secrets and keys are in a file that its owner writes and systemd alone reads."""
    env = {**launch.env, **key_environment(launch)}
    if launch.sockets:
        yield f"RuntimeDirectory={_name(plan, launch)}"
        yield f'Environment="{launch.sockets}=%t/{_name(plan, launch)}"'
    yield from (f"Environment={_quoted(f'{name}={value}')}" for name, value in env.items())
    needed = [*launch.secrets, *(["VLLM_API_KEY"] if launch.guarded else [])]
    needed += [KEY_FILE] if launch.role == "frontend" and plan.nodes else []
    needed += [EPOCH_VARIABLE] if launch.epoch else []
    if needed:
        yield f"# must set: {', '.join(needed)}"
        yield f"EnvironmentFile=%E/{_target(plan)}.env"


def _command(launch: Launch) -> str:
    """`$` is doubled; what all parts of a worker are given alike comes from the environment."""
    words = (_quoted(word.replace("$", "$$")) for word in launch.argv)
    return " ".join(word.replace(EPOCH, f"${{{EPOCH_VARIABLE}}}") for word in words)


def _wait(when: str, url: str) -> str:
    ask = f"curl --noproxy '*' --silent --fail --output /dev/null --max-time 5 '{url}'"
    return f'{when}=/bin/sh -c "until {ask}; do sleep 1; done"'


def _quoted(word: str) -> str:
    return f'"{word.translate(_WORDS)}"'
