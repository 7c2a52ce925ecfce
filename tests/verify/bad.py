"""`python -m tests.verify.bad MUTATION --folder F`: what `manage.py verify` says of a cluster of bad nodes."""

import argparse
import asyncio
import sys
from pathlib import Path

from coordination.verify import run, verdict
from coordination.verify.cluster import Build
from coordination.verify.network import enter_namespaces
from tests.verify.bad_node import MUTATIONS

FAULTS = {
    "skip_sync": ("restart-all",),
    "forget_vote": ("partition", "kill-leader", "restart-all"),
    "read_without_asking": ("partition", "pause-leader", "kill-leader"),
}
"""What brings a defect to light, where traffic alone does not."""
BAD_NODES = {"apply_twice": 1}
"""0, all of them, where it is not said otherwise."""


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mutation", choices=sorted(MUTATIONS))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text", action="store_true")
    given = parser.parse_args()
    options = run.Options(
        base=given.folder,
        seed=given.seed,
        seconds=given.seconds,
        in_namespaces=enter_namespaces(),
        kinds=FAULTS.get(given.mutation, ()),
        build=Build(
            command=(sys.executable, "-m", "tests.verify.bad_node"),
            environment={"GAIA_BAD_BUILD": given.mutation},
        ),
        bad_nodes=BAD_NODES.get(given.mutation, 0),
    )
    found = asyncio.run(run.throw_away(options, say))
    sys.stdout.write((verdict.as_text(found) if given.text else verdict.as_json(found)) + "\n")
    sys.exit(0 if found.held else 1)


if __name__ == "__main__":
    main()
