"""Error counters: what they grew by between two looks. Pure."""

from __future__ import annotations

from dynctl.fabric.checks.case import Case, Finding, Subject, because, ok, skip

ERRORS = (
    *("symbol_error", "link_downed", "link_error_recovery", "port_rcv_errors", "local_link_integrity_errors"),
    "port_xmit_discards",
)
LOSS = ("packet_seq_err", "out_of_sequence")
HW_ERRORS = (
    *LOSS,
    *("local_ack_timeout_err", "rnr_nak_retry_err", "req_transport_retries_exceeded", "roce_adp_retrans_to"),
)
CONGESTION = ("np_cnp_sent", "rp_cnp_handled")
NO_WATCH = "give --watch 10s"


def judge_err(case: Case, subject: Subject) -> Finding:
    """err: errors of the link itself."""
    grown, reason = _grown(case, subject, ERRORS)
    if grown is None or case.since is None:
        return skip(reason)
    bad = {name: value for name, value in grown.items() if value}
    if not bad:
        return ok(f"none in {case.since.seconds:g} s", "0")
    device = subject.device.name if subject.device else None
    status = case.grade(device) if bad.get("link_downed") else "warn"
    cause = "the link went down" if bad.get("link_downed") else "errors on the link: cable, transceiver, the other port"
    fix = f"check the cable; `mlxlink -d {device or 'DEVICE'} -c`"
    return Finding(status, _shown(bad, case.since.seconds), "0", cause, fix)


def judge_cc(case: Case, subject: Subject) -> Finding:
    """cc: packets were lost and nobody was told to slow down."""
    if subject.port is None or not subject.port.roce:
        return skip("InfiniBand has its own flow control")
    grown, reason = _grown(case, subject, (*LOSS, *CONGESTION))
    if grown is None or case.since is None:
        return skip(reason)
    if not any(name in grown for name in CONGESTION):
        return skip("this device has no CNP counters")
    lost = sum(grown.get(name, 0) for name in LOSS)
    notified = sum(grown.get(name, 0) for name in CONGESTION)
    shown = f"{lost} losses, {notified} congestion notifications in {case.since.seconds:g} s"
    if not lost or notified:
        return ok(shown, "no loss, or notifications with it")
    cause = "loss without congestion notification: ECN is off on NIC or switch"
    netdev = subject.device.netdevs[0].name if subject.device and subject.device.netdevs else "INTERFACE"
    fix = f"echo 1 > /sys/class/net/{netdev}/ecn/roce_np/enable/3 (and roce_rp), ECN marking on the switch"
    return Finding("warn", shown, "no loss, or notifications with it", cause, fix)


def judge_hwerr(case: Case, subject: Subject) -> Finding:
    """hwerr: retries, timeouts and losses of RDMA traffic. Loss that `cc` explains is left to it."""
    grown, reason = _grown(case, subject, (*HW_ERRORS, *CONGESTION))
    if grown is None or case.since is None:
        return skip(reason)
    bad = {name: grown[name] for name in HW_ERRORS if grown.get(name)}
    if not bad:
        return ok(f"none in {case.since.seconds:g} s", "0")
    shown = _shown(bad, case.since.seconds)
    if set(bad) <= set(LOSS) and judge_cc(case, subject).red:
        return because("cc")._replace(observed=shown)
    device = subject.device.name if subject.device else None
    exceeded = bad.get("req_transport_retries_exceeded")
    cause = "the peer did not answer: loss, or an address it can't reach" if exceeded else "packets are lost or late"
    fix = "PFC and ECN alike on NICs and switch (row `qos`); the address of each NIC (row `gidsel`)"
    return Finding(case.grade(device) if exceeded else "warn", shown, "0", cause, fix)


def _grown(case: Case, subject: Subject, wanted: tuple[str, ...]) -> tuple[dict[str, int] | None, str]:
    """How much each counter grew; None and the reason where that can't be told."""
    port, device = subject.port, subject.device
    if case.since is None or port is None or device is None:
        return None, NO_WATCH
    before = case.since.earlier.device(device.name)
    earlier = next((one for one in before.ports if one.number == port.number), None) if before else None
    if earlier is None:
        return None, "the port was not there before"
    now, then = {**port.counters, **port.hw_counters}, {**earlier.counters, **earlier.hw_counters}
    grown = {name: now[name] - then[name] for name in wanted if name in now and name in then}
    if not grown:
        return None, "this device has no such counters"
    if any(value < 0 for value in grown.values()):
        return None, "counters were reset meanwhile"
    return grown, ""


def _shown(bad: dict[str, int], seconds: float) -> str:
    return ", ".join(f"{name} +{value}" for name, value in bad.items()) + f" in {seconds:g} s"
