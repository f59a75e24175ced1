"""A plan as a script: it starts the same processes in the same order, and ends them all when it ends."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from dynctl.engines.spec import EPOCH
from dynctl.environ import STEERING_PREFIXES
from dynctl.export.launches import EPOCH_VARIABLE, KEY, KEY_FILE, Launch, key_environment, launches, others_ready
from dynctl.plan.values import Plan

_STAGES = (("frontend",), ("decode", "worker"), ("prefill",))
"""In this order they are ended."""

LINT = (
    "# each process has an environment of its own, traps call functions, and nothing in quotes is to be expanded:",
    "# shellcheck disable=SC2016,SC2030,SC2031,SC2317,SC2329",
)

FUNCTIONS = r"""
say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }

started() {
  pids[$1]=$2
  disown "$2" # bash would tell of its end with all its text
  say "$1: started, process $2, log $logs/$1.log"
}

# everything must be alive, or nothing is
check() {
  local id
  for id in "${!pids[@]}"; do
    if ! kill -0 "${pids[$id]}" 2>/dev/null; then
      say "$id has ended; the end of its log:"
      tail -n 15 "$logs/$id.log" >&2
      exit 1
    fi
  done
}

# await WHAT URL: until it answers 200
await() {
  until curl --noproxy '*' --silent --fail --output /dev/null --max-time 5 "$2"; do
    check
    if ((SECONDS > deadline)); then
      say "$1 was not ready in time"
      exit 124
    fi
    sleep 0.5
  done
  say "$1: ready"
}

# all processes that carry this run's mark, whatever became of their parents
marked() { grep -lzsxF "DYNCTL_EXPORT=$mark" /proc/[0-9]*/environ | sed 's|/proc/\([0-9]*\)/.*|\1|' | grep -vx "$$"; }

# stop SECONDS ID...: asks them to end, and kills them after that time or at a second Ctrl-C
stop() {
  local until=$((SECONDS + $1)) id
  shift
  for id in "$@"; do
    [[ -v pids[$id] ]] && kill -TERM "${pids[$id]}" 2>/dev/null
  done
  for id in "$@"; do
    [[ -v pids[$id] ]] || continue
    while kill -0 "${pids[$id]}" 2>/dev/null && ((SECONDS < until && !hurry)); do sleep 0.1; done
    kill -KILL -- "-${pids[$id]}" 2>/dev/null
  done
}

finish() {
  local code=$? left
  trap 'hurry=1' INT TERM HUP
  trap - EXIT
  stop_all
  for _ in {1..50}; do
    mapfile -t left < <(marked)
    ((${#left[@]})) || break
    kill -KILL "${left[@]}" 2>/dev/null
    sleep 0.1
  done
  rm -rf -- "$sockets"
  say "ended"
  exit "$code"
}
"""


def bash(plan: Plan) -> str:
    """The script for the plan's own node."""
    own = launches(plan)
    return "\n".join(["#!/usr/bin/env bash", *_head(plan), *body(plan, own)]) + "\n"


def _head(plan: Plan) -> Iterator[str]:
    where = f" on node {plan.node}" if plan.nodes else ""
    yield f"# {plan.name}{where}, written by `dynctl export bash`: docs/export.md says what it does and does not do."
    yield from LINT
    yield "# Ctrl-C ends it: the frontend, then decode, then prefill; a second one kills. LOGS=DIR: where logs go."


def body(plan: Plan, own: Sequence[Launch], *, by_index: bool = False) -> Iterator[str]:
    """All but the first lines. `by_index`: GPUs by their numbers, for a machine of the same kind as the plan's."""
    yield "set -u"
    yield ""
    yield f"logs=${{LOGS:-{shlex.quote(f'./{plan.name}.logs')}}}"
    yield f"deadline={round(plan.ready.timeout_s)}"
    yield "mark=$$.$RANDOM.$RANDOM"
    yield "hurry=0"
    yield "declare -gA pids=()"
    yield "sockets="
    yield FUNCTIONS
    yield "stop_all() {"
    for roles in _STAGES:
        if stage := [one for one in own if one.role in roles]:
            yield f"  stop {round(max(one.grace_s for one in stage))} {' '.join(one.id for one in stage)}"
    yield "}"
    yield ""
    yield from _requirements(own)
    yield 'mkdir -p -- "$logs" || exit 1'
    yield "trap finish EXIT"
    yield "trap 'exit 130' INT"
    yield "trap 'exit 143' TERM"
    yield "trap 'exit 129' HUP"
    yield "sockets=$(mktemp -d) || exit 1"
    ready: set[str] = set()
    for launch in own:
        yield ""
        for other in (one for one in own if one.id in launch.after and one.ready and one.id not in ready):
            ready.add(other.id)
            yield f"await {other.id} {shlex.quote(other.ready or '')}"
        if launch.role == "frontend":
            yield from (f"await {shlex.quote(url)} {shlex.quote(url)}" for url in others_ready(plan, launch.node))
        yield from _start(launch, by_index=by_index)
    yield ""
    yield from (f"await {one.id} {shlex.quote(one.ready)}" for one in own if one.ready and one.id not in ready)
    yield f"say {shlex.quote(f'serving {plan.served_name} at {plan.frontend_url}')}"
    yield "while :; do"
    yield "  check"
    yield "  sleep 0.5"
    yield "done"


def _requirements(own: Sequence[Launch]) -> Iterator[str]:
    """What must be there before anything starts. Settings of the caller's that would steer the KV path are dropped."""
    yield "for tool in curl setsid taskset; do"
    yield '  command -v "$tool" >/dev/null || { echo "this script needs $tool" >&2; exit 3; }'
    yield "done"
    for name in dict.fromkeys(name for launch in own for name in launch.secrets):
        yield f': "${{{name}:?is a secret and not in this file: set it in the environment}}"'
    if any(launch.guarded for launch in own):
        yield f': "${{{KEY_FILE}:?names a file with a key, the same on all nodes: openssl rand -hex 32}}"'
    if any(launch.epoch for launch in own):
        yield f': "${{{EPOCH_VARIABLE}:?must be the same on all nodes, and another at each start}}"'
    yield "for name in $(compgen -e); do"
    yield f'  case $name in {"|".join(f"{prefix}*" for prefix in STEERING_PREFIXES)}) unset "$name" ;; esac'
    yield "done"


def _start(launch: Launch, *, by_index: bool) -> Iterator[str]:
    env = {**launch.env, **key_environment(launch)}
    if by_index and launch.gpus and "CUDA_VISIBLE_DEVICES" in env:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, launch.gpus))
    bind = ["taskset", "-c", launch.cpus] if launch.cpus else []
    numa = f"--preferred={launch.memory_nodes[0]}" if len(launch.memory_nodes) == 1 else ""
    yield "("
    yield '  export DYNCTL_EXPORT="$mark"'
    yield from (f"  export {name}={shlex.quote(value)}" for name, value in env.items())
    if launch.sockets:
        yield f'  export {launch.sockets}="$sockets"'
    if launch.guarded:
        yield f'  {KEY}=$(<"${KEY_FILE}") && export {KEY}'
    words = " ".join(_quoted(word) for word in (*bind, *launch.argv))
    if numa:
        yield f"  command -v numactl >/dev/null && exec setsid numactl {numa} {words}"
    yield f"  exec setsid {words}"
    yield f') </dev/null >>"$logs/{launch.id}.log" 2>&1 &'
    yield f"started {launch.id} $!"


def _quoted(word: str) -> str:
    return shlex.quote(word).replace(EPOCH, f"'\"${EPOCH_VARIABLE}\"'")
