"""The public LRS conformance suite against the record store at /xapi/.

The suite is a checkout of github.com/adlnet/lrs-conformance-test-suite in which `npm install --ignore-scripts` has
run; XAPI_SUITE or the first argument says where. Without one there is nothing to run. Ends with 1 where a test
fails, and tells which on standard error. Run: python -m bench.xapi_conformance PATH
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.figures import report
from bench.system import running_system

VERSIONS = ("1.0.3", "2.0.0")
LIMIT_S = 400


def passed(suite: Path, endpoint: str, key: str, version: str) -> tuple[int, int]:
    """How many of how many tests pass."""
    options = ["-e", endpoint, "-a", "-u", "suite", "-p", key, "-x", version, "-z"]
    done = subprocess.run(
        ["node", "bin/console_runner.js", *options],
        cwd=suite,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"total"')]
    if not lines:
        raise SystemExit(f"The suite said nothing: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    summary = json.loads(lines[-1])
    if summary["passed"] != summary["total"]:
        print(done.stdout[-20_000:], file=sys.stderr)
    return summary["passed"], summary["total"]


def main(arguments: list[str]) -> int:
    place = arguments[0] if arguments else os.environ.get("XAPI_SUITE")
    if place is None:
        print(
            json.dumps({"bench": "xapi_conformance", "skipped": "XAPI_SUITE does not say where the suite is"})
        )
        return 0
    is_whole = True
    with running_system() as (system, facts):
        for version in VERSIONS:
            good, total = passed(
                Path(place).resolve(), f"{facts['url']}/xapi", facts["keys"]["metrics"], version
            )
            report("xapi_conformance", f"tests passed of {version}", [good], f"of {total}")
            is_whole &= good == total
        assert system.process.poll() is None
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
