"""How long nobody can write after `kill -9` of the leader under load, and how often nothing but a busy machine elects one.

Both profiles: *default* (150 to 300 ms) and *steady* (500 ms to 1 s). Three members are three processes that keep
commands outstanding; the time runs from the signal to the first command committed by a survivor. False elections are
terms that began while every core was kept busy and nobody was killed.
Run: python -m bench.failover [--trials 100] [--busy-s 60] [--jsonl FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.figures import percentile, report
from bench.log import LIMIT_S, RUNS, Cluster, sync_ms

PROFILES = {
    "default": {"heartbeat_timeout_s": 0.15, "election_timeout_s": 0.3},
    "steady": {"heartbeat_timeout_s": 0.5, "election_timeout_s": 1.0},
}
WINDOW = 8
"""Commands each member keeps outstanding."""
BURN = "import sys, time\nends = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < ends: pass"


def settle(cluster: Cluster) -> str:
    """The leader, once it leads and every member commits."""
    leader = cluster.leader()
    for process in cluster.running.values():
        process.ask(op="commit")
    return leader


def trial_ms(cluster: Cluster) -> float:
    """Kill the leader and wait for the next commit; then bring it back."""
    leader = settle(cluster)
    killed = cluster.running.pop(leader).end()
    for process in cluster.running.values():
        process.send(op="commit")
    taken_ms = (min(process.hear() for process in cluster.running.values()) - killed) * 1000
    cluster.start(leader)
    cluster.running[leader].ask(op="commit")
    cluster.running[leader].ask(op="load", window=WINDOW)
    return taken_ms


def false_elections(cluster: Cluster, busy_s: float) -> int:
    """Terms that began while all cores were busy for so long."""
    settle(cluster)
    before = max(process.ask(op="term") for process in cluster.running.values())
    burning = [
        subprocess.Popen([sys.executable, "-c", BURN, str(busy_s)]) for _ in range(os.cpu_count() or 1)
    ]
    try:
        for process in burning:
            process.wait(busy_s + LIMIT_S)
    finally:
        for process in burning:
            process.kill()
            process.wait()
    return max(process.ask(op="term") for process in cluster.running.values()) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--busy-s", type=float, default=30.0)
    parser.add_argument("--jsonl", type=Path, help="raw data, one line a trial, is added to this file")
    options = parser.parse_args()
    raw: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="gaia-bench-") as folder:
        report("failover", "disk sync p50", [sync_ms(Path(folder)) for _ in range(RUNS)], "ms")
        for profile, settings in PROFILES.items():
            cluster = Cluster(Path(folder) / profile, 3, **settings)
            try:
                settle(cluster)
                for process in cluster.running.values():
                    process.ask(op="load", window=WINDOW)
                taken = [trial_ms(cluster) for _ in range(options.trials)]
                load1 = round(os.getloadavg()[0], 1)
                report("failover", f"failover median, {profile}", taken, "ms", trials=len(taken), load1=load1)
                report("failover", f"failover p99, {profile}", [percentile(taken, 0.99)], "ms")
                raw += [
                    {"at": time.time(), "profile": profile, "failover_ms": round(ms, 1), "load1": load1}
                    for ms in taken
                ]
                if options.busy_s > 0:
                    count = false_elections(cluster, options.busy_s)
                    report("failover", f"false elections, {profile}", [count], f"in {options.busy_s:g} s")
                    raw.append(
                        {
                            "at": time.time(),
                            "profile": profile,
                            "false_elections": count,
                            "busy_s": options.busy_s,
                        }
                    )
            finally:
                cluster.close()
    if options.jsonl:
        options.jsonl.parent.mkdir(parents=True, exist_ok=True)
        with options.jsonl.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in raw)


if __name__ == "__main__":
    main()
