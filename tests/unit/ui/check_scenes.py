"""Reports of `check-rdma` that its outputs are tested with: constructed, none was measured."""

from __future__ import annotations

from dynctl.fabric.conclude import conclude
from dynctl.fabric.report import Check, PairReport, Report, UcxLibrary
from dynctl.hardware.values import Gpu, Hardware, Nic, NicPort
from dynctl.plan.values import PlannedPair, TransportClass
from dynctl.telemetry.status import Evidence

CMA = "intra-node cfg#1 | remote memory read by ucp_get*(multi) into host memory from host | 0..inf | zero-copy"
NIXL_UCX = UcxLibrary(
    source="NIXL 1.5.1", version="1.23.0", path="/opt/e/libucp.so.0", transports=("cma", "tcp"), used=True
)
SYSTEM_UCX = UcxLibrary(source="/usr/lib", version="1.13.1", path="/usr/lib/libucp.so.0", transports=("tcp",))
HOSTILE = "<script>alert(1)</script>\x1b[31m &\"'"


def needed(floor: TransportClass, *pairs: tuple[str, str]) -> tuple[PlannedPair, ...]:
    return tuple(PlannedPair(from_=a, to=b, path=floor, floor=floor, reason="test") for a, b in pairs)


def pair(source: str, target: str, verdict: str = "shm", rate: float | None = 7.91, **more: object) -> PairReport:
    lane = {"shm": "cma/memory", "tcp": "tcp/eth0", "rdma": "rc_mlx5/mlx5_0:1", "nvlink": "cuda_ipc/cuda"}.get(verdict)
    line = Evidence(kind="used", source="decode-0", line=f"{CMA} | {lane} | 20 uses")
    given: dict[str, object] = {
        "from_": source,
        "to": target,
        "verdict": verdict,
        "gigabytes_per_s": rate,
        "spread": 0.08,
        "latency_us": 11.5,
        "size_bytes": 256 << 20,
        "evidence": (line,) if lane else (),
    }
    return PairReport(**{**given, **more})  # type: ignore[arg-type]


def cpu_node() -> Report:
    rows = [Check(id="dev", target="this node", status="skip", cause="no RDMA device in /sys/class/infiniband")]
    rows += [
        Check(id=name, target="this node", status="skip", cause="because dev") for name in ("uverbs", "state", "gid")
    ]
    rows += [
        Check(id="memlock", target="this node", status="pass", observed="unlimited"),
        Check(id="ptrace", target="this node", status="pass", observed="ptrace_scope 0"),
        Check(id="shm", target="this node", status="warn", observed="64 MiB", expected="1 GiB or more",
              cause="too small for shared-memory transports", fix="docker run --shm-size=8g"),
    ]  # fmt: skip
    way = ("prefill-0", "decode-0")
    return conclude(
        required="auto", needed=needed("shm", way), checks=rows, pairs=[pair(*way)], ucx=(NIXL_UCX, SYSTEM_UCX),
        hostname="cpu-1", seconds=2.41,
    )  # fmt: skip


def broken_rdma() -> Report:
    rows = [
        Check(id="state", target="mlx5_1:1", status="fail", observed="1: DOWN / 3: Disabled",
              expected="4: ACTIVE / 5: LinkUp", cause="the port is not up, and UCX drops it with only a trace message",
              fix="ip link set ens1f1np1 up"),
        *(Check(id=name, target="mlx5_1:1", status="skip", cause="because state") for name in ("gid", "rate", "mtu")),
        *(Check(id=name, target=f"mlx5_{n}:1", status="pass", observed="fine") for n in (0, 2, 3) for name in
          ("dev", "uverbs", "state", "rate", "gid", "gid0", "gidsel", "mtu", "ndev", "pcie", "mrrs")),
        Check(id="acs", target="mlx5_2", status="warn", observed="0x001f at 0000:15:01.0", expected="0",
              cause="ACS sends peer traffic through the CPU", fix="setpci -s 0000:15:01.0 ECAP_ACS+6.w=0"),
    ]  # fmt: skip
    ways = [(f"prefill-{p}", f"decode-{d}") for p in range(2) for d in range(2)]
    pairs = [
        pair("prefill-0", "decode-0", "rdma", 47.1, memory="cuda", gpu=0, nics=("mlx5_0",), fraction_of_line_rate=0.94),
        pair("prefill-0", "decode-1", "rdma", 46.8, memory="cuda", gpu=0, nics=("mlx5_0",), fraction_of_line_rate=0.94),
        pair("prefill-1", "decode-0", "tcp", 0.52, memory="cuda", gpu=1, nics=("mlx5_1",),
             error="UCX found no RDMA device", fix="see the row state of mlx5_1:1"),
        pair("prefill-1", "decode-1", "unknown", None, memory="cuda", gpu=1, error="the probe was killed by SIGSEGV"),
    ]  # fmt: skip
    return conclude(
        required="rdma", needed=needed("rdma", *ways), checks=rows, pairs=pairs, hostname="gpu-1", seconds=9.3
    )


def two_nodes() -> Report:
    pairs = [pair("a", "b", "tcp", 0.83), pair("b", "a", "tcp", 0.71)]
    return conclude(
        required="auto", needed=needed("tcp", ("a", "b"), ("b", "a")), checks=[], pairs=pairs, hostname="a", peer="b"
    )


def hostile() -> Report:
    row = Check(id="x", target=HOSTILE, status="fail", observed=HOSTILE, expected=HOSTILE, cause=HOSTILE, fix=HOSTILE)
    odd = pair(HOSTILE, HOSTILE, "unknown", None, error=HOSTILE, fix=HOSTILE, nics=(HOSTILE,),
               evidence=(Evidence(kind="used", source=HOSTILE, line=HOSTILE),))  # fmt: skip
    library = UcxLibrary(source=HOSTILE, version=HOSTILE, path=HOSTILE, transports=(HOSTILE,))
    return conclude(
        required=HOSTILE, needed=needed("tcp", ("a", "b")), checks=[row], pairs=[odd], ucx=[library], hostname=HOSTILE
    )


def no_proof() -> Report:
    row = Check(id="memlock", target="this node", status="pass", observed="unlimited")
    return conclude(required="auto", needed=(), checks=[row], pairs=[])


def eight_gpus() -> Hardware:
    port = NicPort(number=1, state="ACTIVE", phys_state="LinkUp", rate_gigabits_per_s=400)
    return Hardware(
        hostname="gpu-1",
        gpus=tuple(
            Gpu(index=i, uuid=f"GPU-{i}", name="H100", memory_bytes=80 << 30, nvswitch_links=18, numa=i // 4,
                pci_path=(f"pci0000:{i}0", f"0000:{i}0:01.0", f"0000:{i}1:00.0", f"0000:{i}2:00.0"))
            for i in range(8)
        ),
        nics=tuple(
            Nic(name=f"mlx5_{i}", numa=i // 4, ports=(port,),
                pci_path=(f"pci0000:{i}0", f"0000:{i}0:01.0", f"0000:{i}1:00.0", f"0000:{i}3:00.0"))
            for i in range(8)
        ),
    )  # fmt: skip
