"""What the system takes when nothing happens: memory of all its processes together, share of one core.

Memory is the proportional set size (PSS), so pages shared by PostgreSQL's processes count once. Goals: under
700 MiB and under 5 % of a core. Run: python -m bench.idle
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.figures import report
from bench.system import running_system

SETTLE_S = 20
WINDOW_S = 20
RUNS = 3
TICKS = os.sysconf("SC_CLK_TCK")


def family(pids: list[int]) -> set[int]:
    """The processes and all below them."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat[1])
    found = set(pids)
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def cpu_s(pids: set[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        total += (int(stat[11]) + int(stat[12])) / TICKS
    return total


def main() -> None:
    with running_system(DEMO="0") as (system, _):
        time.sleep(SETTLE_S)
        memory, share = [], []
        for _run in range(RUNS):
            pids = family(system.pids())
            before, started = cpu_s(pids), time.monotonic()
            time.sleep(WINDOW_S)
            share.append(100 * (cpu_s(pids) - before) / (time.monotonic() - started))
            memory.append(sum(map(pss_mib, family(system.pids()))))
            by_role = {
                one["name"]: round(
                    sum(map(pss_mib, family([one["pid"]])) if one["role"] != "up" else pss_mib(one["pid"]))
                )
                for one in system.run_file()["processes"]
            }
    report("idle", "memory of all processes (PSS)", memory, "MiB", by_process=by_role)
    report("idle", "processor", share, "% of one core")


if __name__ == "__main__":
    main()
