"""What a run comes to, for people and as JSON. It held only if every check held, traffic that proves something included."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from coordination.verify.faults import Done
from coordination.verify.history import OPS, Operation
from coordination.verify.promises import Finding, Result

SUCCESSES_MIN = 5
"""Of each kind of operation: a kind that hardly ever succeeded was not checked."""
RATE_MIN = 1.0
"""Successes a second over the whole run."""
SHOWN_OPERATIONS = 12


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault with its times in seconds since the traffic began, and what it cost."""

    kind: str
    detail: str
    begin_s: float
    end_s: float
    recovery_s: float | None
    longest_gap_s: float | None
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything about one run."""

    run: str
    seed: int
    mode: str
    nodes: int
    network: str
    seconds: float
    folder: str
    counts: Mapping[str, Mapping[str, int]]
    faults: Sequence[Fault]
    results: Sequence[Result]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def held(self) -> bool:
        """Whether every check held."""
        return bool(self.results) and all(result.held for result in self.results)


def counted(operations: Sequence[Operation]) -> dict[str, dict[str, int]]:
    """How often each operation came to each outcome: its status, or unknown."""
    counts = Counter((one.op, str(one.status) if one.is_known else "unknown") for one in operations)
    found: dict[str, dict[str, int]] = {}
    for (op, outcome), count in sorted(counts.items()):
        found.setdefault(op, {})[outcome] = count
    return found


def enough_traffic(operations: Sequence[Operation], seconds: float, ops: Sequence[str] = OPS) -> Result:
    """A run in which little succeeded shows little."""
    check = "traffic"
    done = Counter(one.op for one in operations if one.is_ok)
    findings = [
        Finding(check, op, f"succeeded {done[op]} times, not {SUCCESSES_MIN}")
        for op in ops
        if done[op] < SUCCESSES_MIN
    ]
    least = int(seconds * RATE_MIN)
    if done.total() < least:
        findings.append(Finding(check, "", f"{done.total()} successes in {seconds:.0f} s, not {least}"))
    return Result(check, "there was traffic of every kind, and it succeeded", done.total(), tuple(findings))


def faults_of(
    done: Sequence[Done], recoveries: Sequence[tuple[float | None, float | None]], begin_ns: int
) -> list[Fault]:
    """The faults in the run's own time."""
    return [
        Fault(
            kind=one.kind,
            detail=one.detail,
            begin_s=round((one.begin_ns - begin_ns) / 1e9, 2),
            end_s=round((one.end_ns - begin_ns) / 1e9, 2),
            recovery_s=None if recovery is None or one.skipped else round(recovery, 3),
            longest_gap_s=None if gap is None or one.skipped else round(gap, 3),
            skipped=one.skipped,
        )
        for one, (recovery, gap) in zip(done, recoveries, strict=True)
    ]


def as_json(verdict: Verdict) -> str:
    """One JSON object."""
    return json.dumps(msgspec.to_builtins(verdict) | {"held": verdict.held})


def as_text(verdict: Verdict) -> str:
    """For a terminal."""
    lines = [
        f"run {verdict.run}: seed {verdict.seed}, {verdict.mode}, {verdict.nodes} nodes",
        f"network by {verdict.network}, {verdict.seconds:.0f} s",
        "",
        "operations",
        *(f"  {op:<18}{_outcomes(counts)}" for op, counts in verdict.counts.items()),
    ]
    if verdict.faults:
        lines += [
            "",
            "faults               begin     end  recovery  longest gap",
            *map(_fault, verdict.faults),
        ]
    lines += ["", "checks", *(line for result in verdict.results for line in _result(result))]
    lines += ["", *verdict.notes, f"record: {verdict.folder}"]
    lines.append(f"{'HELD' if verdict.held else 'BROKEN'}  seed {verdict.seed}")
    return "\n".join(lines)


def _outcomes(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{outcome} {count}" for outcome, count in counts.items())


def _fault(fault: Fault) -> str:
    if fault.skipped:
        return f"  {fault.kind:<18}{fault.begin_s:7.1f}  skipped: {fault.skipped}"
    return (
        f"  {fault.kind:<18}{fault.begin_s:7.1f} {fault.end_s:7.1f} {_seconds(fault.recovery_s)}"
        f"     {_seconds(fault.longest_gap_s)}  {fault.detail}"
    )


def _seconds(value: float | None) -> str:
    return "   never" if value is None else f"{value:6.2f} s"


def _result(result: Result) -> list[str]:
    mark = "held  " if result.held else "BROKEN"
    lines = [f"  {mark} {result.check:<16}{result.looked_at:>8}  {result.promise}"]
    for finding in result.findings:
        lines.append(f"           {finding.key}: {finding.detail}")
        lines += [f"             {_operation(one)}" for one in finding.operations[:SHOWN_OPERATIONS]]
        if len(finding.operations) > SHOWN_OPERATIONS:
            lines.append(f"             and {len(finding.operations) - SHOWN_OPERATIONS} more")
    return lines


def _operation(one: Operation) -> str:
    told: Any = "unknown" if one.output is None else one.output
    ended = "…" if one.return_ns is None else f"{one.return_ns / 1e9:.4f}"
    return f"p{one.process} {one.invoke_ns / 1e9:.4f}–{ended} {one.op} {one.input} → {told}"
