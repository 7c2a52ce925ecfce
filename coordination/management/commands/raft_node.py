"""`manage.py raft_node`: one node of the coordination cluster, configured by the environment."""

import gc
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from coordination.node.membership import NotAMember
from coordination.node.runner import run_node


class Command(BaseCommand):
    """Runs until SIGTERM; exits non-zero if a part of it fails."""

    help = "Run one coordination node: its seat in the replicated log, the state machine, the projection."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the node. What is loaded by now is kept from the collector, whose pauses would hold the log."""
        gc.collect()
        gc.freeze()
        try:
            code = run_node(settings.GAIA)
        except NotAMember as error:
            raise CommandError(str(error)) from error
        sys.exit(code)
