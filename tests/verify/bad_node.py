"""A node with one promise broken on purpose, so that it can be seen that `verify` notices. Only tests start it.

`GAIA_BAD_BUILD` names the promise. Nothing of the system itself reads that variable.
"""

import os
import sys
from collections.abc import Callable

from django.core.management import execute_from_command_line


def stale_token() -> None:
    """Whoever has ever held a lock or a task may still change it."""
    from coordination.machine.rules import locks, tasks

    held = tasks._held

    def held_anyhow(state, task_id, claim_token):
        task = state.tasks.get(task_id)
        return task if task is not None and task.claim is not None else held(state, task_id, claim_token)

    tasks._held = held_anyhow
    locks._is_holder = lambda lock, owner_id, fencing_token: True


def two_holders() -> None:
    """A lock that is held is granted once more."""
    from coordination.machine.rules import locks

    locks._is_left_over = lambda state, lock: True


def short_leases() -> None:
    """Everything ends in half of the time that was promised."""
    from coordination.machine.state import State

    State.deadline_ms = lambda self, ttl_ms: self.clock_ms + ttl_ms // 2


def apply_twice() -> None:
    """This node applies some entries of the log twice: use it on one node alone."""
    from coordination.node.replica import Replica

    apply, applied = Replica.apply, [0]

    def apply_again(self, payload):
        applied[0] += 1
        if applied[0] % 20 == 0:
            apply(self, payload)
        return apply(self, payload)

    Replica.apply = apply_again


def skip_sync() -> None:
    """What was written stays in the process's memory, as without fsync it stays in the machine's: a kill loses it."""
    from coordination.log.disk import OpenFile

    write, close = OpenFile.write, OpenFile.close
    waiting: dict[int, list[bytes]] = {}

    def keep(self, data):
        waiting.setdefault(id(self), []).append(bytes(data))

    def write_and_close(self):
        for data in waiting.pop(id(self), []):
            write(self, data)
        close(self)

    OpenFile.write, OpenFile.sync, OpenFile.close = keep, lambda self: None, write_and_close


def forget_vote() -> None:
    """A node that starts again has forgotten its term and whom it voted for."""
    from coordination.log.journal import Journal

    recover = Journal._recover

    def recover_and_forget(self):
        recover(self)
        self._term, self._voted_for = 0, None

    Journal._recover = recover_and_forget


def read_without_asking() -> None:
    """A linearizable read is answered from what this node happens to have."""
    from coordination.log import reads

    make = reads.Read
    reads.Read = lambda _, *rest: make(0, *rest)


MUTATIONS: dict[str, Callable[[], None]] = {
    mutation.__name__: mutation
    for mutation in (
        stale_token,
        two_holders,
        short_leases,
        apply_twice,
        skip_sync,
        forget_vote,
        read_without_asking,
    )
}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gaia_site.settings")
    MUTATIONS[os.environ["GAIA_BAD_BUILD"]]()
    execute_from_command_line(["manage.py", "raft_node"])


if __name__ == "__main__":
    sys.exit(main())
