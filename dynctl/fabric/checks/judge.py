"""All rows of a node: which rule is asked about what, in which order, and which it waits for. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dynctl.fabric.checks import counters, gids, gpu, host, links, ports, settings
from dynctl.fabric.checks.case import HOST, Case, Finding, Rule, Subject, because, skip
from dynctl.fabric.checks.values import Need, Observed, Since
from dynctl.fabric.report import Check

RULES: tuple[Rule, ...] = (
    Rule("dev", "device", ports.judge_dev),
    Rule("uverbs", "device", ports.judge_uverbs, ("dev",)),
    Rule("ndev", "device", ports.judge_ndev, ("dev",)),
    Rule("state", "port", ports.judge_state, ("dev", "ndev")),
    Rule("rate", "port", ports.judge_rate, ("dev", "state", "ndev")),
    Rule("ctr", "port", gids.judge_ctr, ("dev", "state", "ndev")),
    Rule("gid", "port", gids.judge_gid, ("dev", "state", "ndev", "ctr")),
    Rule("gid0", "port", gids.judge_gid0, ("dev", "state", "ndev", "ctr", "gid")),
    Rule("gidsel", "port", gids.judge_gidsel, ("dev", "state", "ndev", "ctr", "gid")),
    Rule("mtu", "port", ports.judge_mtu, ("dev", "ndev")),
    Rule("qos", "port", ports.judge_qos, ("dev", "ndev")),
    Rule("err", "port", counters.judge_err, ("dev", "state", "ndev")),
    Rule("cc", "port", counters.judge_cc, ("dev", "state", "ndev")),
    Rule("hwerr", "port", counters.judge_hwerr, ("dev", "state", "ndev")),
    Rule("pcie", "device", links.judge_pcie, ("dev",)),
    Rule("pcie", "gpu", links.judge_pcie),
    Rule("mrrs", "device", links.judge_mrrs, ("dev",)),
    Rule("acs", "host", links.judge_acs),
    Rule("iommu", "host", host.judge_iommu),
    Rule("ro", "host", links.judge_ro),
    Rule("dmabuf", "host", gpu.judge_dmabuf),
    Rule("gdr", "host", gpu.judge_gdr, ("dmabuf",)),
    Rule("gdrcopy", "host", gpu.judge_gdrcopy),
    Rule("topo", "worker", links.judge_topo),
    Rule("numa", "worker", links.judge_numa, ("topo",)),
    Rule("memlock", "host", host.judge_memlock),
    Rule("nofile", "host", host.judge_nofile),
    Rule("shm", "host", host.judge_shm),
    Rule("ptrace", "host", host.judge_ptrace),
    Rule("tls", "worker", settings.judge_tls),
    Rule("netdev", "worker", settings.judge_netdev),
    Rule("cvd", "worker", gpu.judge_cvd),
)
NOTHING = {"port": "no RDMA port", "gpu": "no GPU", "worker": "no worker is planned"}


def judge(observed: Observed, need: Need, since: Since | None = None) -> tuple[Check, ...]:
    """Every row. A row waits for those it names: where one of them is red for the same device, it is skipped."""
    case = Case(observed, need, since)
    red: set[tuple[str, str]] = set()
    rows: list[Check] = []
    for rule in RULES:
        subjects = list(_subjects(case, rule))
        if not subjects:
            blocked = next((before for before in rule.after if (before, HOST) in red), None)
            rows.append((because(blocked) if blocked else skip(NOTHING[rule.scope])).row(rule.id, HOST))
        for subject in subjects:
            finding = _blocked(rule, subject, red) or rule.judge(case, subject)
            rows.append(finding.row(rule.id, subject.name))
            if finding.red:
                red.add((rule.id, subject.name))
                red |= {(rule.id, subject.device.name)} if subject.device and rule.scope == "device" else set()
    return tuple(rows)


def _blocked(rule: Rule, subject: Subject, red: set[tuple[str, str]]) -> Finding | None:
    around = {subject.name, HOST, *([subject.device.name] if subject.device else [])}
    blocked = next((before for before in rule.after if any((before, name) in red for name in around)), None)
    if blocked:
        return because(blocked)
    if rule.id != "dev" and rule.scope in ("device", "port") and subject.device is None:
        return skip("no RDMA device")
    return None


def _subjects(case: Case, rule: Rule) -> Iterator[Subject]:
    """What a rule is asked about. NICs without an RDMA device come as PCI addresses, or as the plan's name for them."""
    observed, need = case.observed, case.need
    if rule.scope == "host":
        yield Subject(HOST)
    elif rule.scope == "gpu":
        yield from (Subject(address, function=observed.pci.get(address)) for address in observed.gpus)
    elif rule.scope == "worker":
        yield from (Subject(worker.id, worker=worker) for worker in need.workers)
    else:
        for device in observed.devices:
            function = observed.pci.get(device.pci)
            if rule.scope == "device":
                yield Subject(device.name, device, function=function)
            for port in device.ports if rule.scope == "port" else ():
                yield Subject(f"{device.name}:{port.number}", device, port, function)
        with_device = {device.pci for device in observed.devices}
        missing = [address for address in observed.nics if address not in with_device]
        unknown = sorted(need.nics() - {device.name for device in observed.devices})
        yield from (Subject(address, function=observed.pci.get(address)) for address in missing)
        yield from (Subject(name) for name in unknown if not missing)
        if not (observed.devices or missing or unknown):
            yield Subject(HOST)
