"""`make bench`: the machine described, then every benchmark, one after another, each in a process of its own.

Run: python -m bench [NAME …]   (all of them without a name)
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NOT_BENCHMARKS = {"__init__", "__main__", "figures", "system", "nodes", "fit_wheel_spin"}
LIMIT_S = 1800


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next(
        (line.partition(":")[2].strip() for line in described.splitlines() if "model name" in line), "unknown"
    )
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "bench": "machine",
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(pages * size / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1_min": round(os.getloadavg()[0], 2),
    }


def main(names: list[str]) -> int:
    known = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_BENCHMARKS)
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"No benchmark {', '.join(unknown)}. There are: {', '.join(known)}.", file=sys.stderr)
        return 2
    print(json.dumps(machine()), flush=True)
    failed = [name for name in names or known if not passes(name)]
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def passes(name: str) -> bool:
    """Run one benchmark; what it prints goes straight through."""
    command = [sys.executable, "-m", f"bench.{name}"]
    try:
        return subprocess.run(command, check=False, cwd=HERE.parent, timeout=LIMIT_S).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"{name} took more than {LIMIT_S} s and was ended.", file=sys.stderr)
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
