"""`manage.py verify`: traffic and faults against a throw-away cluster, and a checker that judges what was answered."""

import argparse
import asyncio
import random
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from coordination.verify import run, verdict
from coordination.verify.cluster import NotStarted
from coordination.verify.faults import KINDS
from coordination.verify.history import HistoryDamaged
from coordination.verify.network import NetworkFailed, enter_namespaces
from coordination.verify.traffic import Refused
from gaia_site.embedded.account import EmbeddedServerError

NODES_MOST = 9
MINUTES_MOST = 24 * 60.0


class Command(BaseCommand):
    """Exits 0 only if every check held."""

    help = "Put a cluster under traffic and faults, and check its answers."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """What a run is told."""
        parser.add_argument("--nodes", type=int, default=3, help="nodes of the throw-away cluster (3)")
        parser.add_argument("--minutes", type=float, default=1.0, help="length of the traffic (1)")
        parser.add_argument(
            "--seed", type=int, help="draws traffic and faults; one is chosen where none is given"
        )
        parser.add_argument(
            "--faults",
            default=",".join(KINDS),
            help="kinds of faults, separated by commas; empty for none",
        )
        parser.add_argument(
            "--network",
            choices=("auto", "namespaces", "proxies"),
            default="auto",
            help="how directions are cut: namespaces need root",
        )
        parser.add_argument("--keep", action="store_true", help="keep the data of a run that held")
        parser.add_argument("--against", metavar="URL", help="beside a running system: no faults, own names")
        parser.add_argument("--key", help="API key for --against, with the scope agent")
        parser.add_argument(
            "--check", metavar="FOLDER", type=Path, help="judge an earlier run's record again"
        )
        parser.add_argument("--json", action="store_true", help="print the verdict as one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, print, and exit with the verdict."""
        try:
            found = self._found(options)
        except (NotStarted, NetworkFailed, EmbeddedServerError, Refused, HistoryDamaged, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(verdict.as_json(found) if options["json"] else verdict.as_text(found))
        sys.exit(0 if found.held else 1)

    def _found(self, options: dict[str, Any]) -> verdict.Verdict:
        if options["check"] is not None:
            return run.recheck(options["check"])
        told = self._options(options)
        if options["against"]:
            if not options["key"]:
                raise CommandError("--against needs --key: an API key with the scope agent")
            return asyncio.run(run.against(options["against"], options["key"], told, self._say(options)))
        return asyncio.run(run.throw_away(told, self._say(options)))

    def _say(self, options: dict[str, Any]) -> run.Say:
        return _say_nothing if options["json"] else self.stdout.write

    def _options(self, options: dict[str, Any]) -> run.Options:
        nodes, minutes = options["nodes"], options["minutes"]
        if not 1 <= nodes <= NODES_MOST:
            raise CommandError(f"--nodes must be from 1 to {NODES_MOST}, not {nodes}")
        if not 0 < minutes <= MINUTES_MOST:
            raise CommandError(f"--minutes must be above 0 and at most {MINUTES_MOST:.0f}, not {minutes}")
        kinds = tuple(kind for kind in options["faults"].split(",") if kind)
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown:
            raise CommandError(f"--faults: {', '.join(unknown)} is not one of {', '.join(KINDS)}")
        seed = options["seed"] if options["seed"] is not None else random.randrange(1_000_000)
        is_inside = not options["against"] and options["network"] != "proxies" and enter_namespaces()
        if options["network"] == "namespaces" and not is_inside:
            raise CommandError("--network namespaces: this account may not make them")
        return run.Options(
            base=Path(settings.GAIA.data_dir) / "verify",
            seed=seed,
            seconds=minutes * 60.0,
            nodes=nodes,
            in_namespaces=is_inside,
            kinds=_possible(kinds, nodes),
            keep=options["keep"],
        )


def _say_nothing(line: str) -> None:
    """Where the verdict alone is wanted."""


def _possible(kinds: tuple[str, ...], nodes: int) -> tuple[str, ...]:
    """A cluster of one has nobody to be cut from or to hand leadership to."""
    alone = ("partition", "partition-one-way", "transfer", "membership")
    return tuple(kind for kind in kinds if nodes > 1 or kind not in alone)
