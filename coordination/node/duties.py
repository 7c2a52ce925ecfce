"""What a node does unasked, each duty a `step() -> bool` ("was there work?") called in a thread of its own.

begin: the first commands of a cluster, and of each leader. tick: the clock. feed: rows the machine was not
given yet. schedule: pushes tasks to sessions that take them. project: events into rows. All but the last
part of project are the leader's alone; a node that wrongly believes it leads does no harm.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from django.db import Error as DatabaseError
from django.db import connection

from coordination.errors import CoordinationError
from coordination.log.contract import LEADER, Belief, MemberStatus
from coordination.machine.codec import decode_snapshot
from coordination.machine.commands import AnyCommand, PolicySet, RevisionRaise, TaskAssign, Tick
from coordination.machine.events import Recorded
from coordination.machine.outcomes import Accepted, Rejected, TickAnswer
from coordination.machine.policy import Policy
from coordination.machine.scoring import plan_assignments
from coordination.machine.state import State, has_outstanding, state_of
from coordination.models import DistributedTask
from coordination.node import meters
from coordination.node.backlog import Backlog
from coordination.node.replica import Replica
from coordination.node.waiters import made_claimable
from coordination.offers import dependencies_of, offer_of
from coordination.projection import Author, Behind, Gap, Watermark, project, read_watermark, reconcile

log = logging.getLogger("gaia.node")

Submit = Callable[[Sequence[AnyCommand]], list[Accepted | Rejected]]
ReadBarrier = Callable[[], None]
Status = Callable[[], Belief | MemberStatus]

ACTOR = "coordinator"
TICK_MS = 200
TICK_COUNTED_MS_MAX = 500
"""The most time one tick adds: a process that stood still longer could hear no heartbeat meanwhile, and its
silence must not end the leases of sessions that kept calling. What is granted just before a late tick loses all that
the tick adds, so this is also the slack that every deadline has on top (`Policy.tick_slack_ms`)."""
REVISION_MARGIN = 1_000_000
"""How far above the watermark a new cluster begins: more than a lost one can have granted unprojected."""
FEED_ROWS_MAX = 1_000
FEED_PAUSE_S = 1.0
SCHEDULE_MAX = 100
SCHEDULE_RECHECK_S = 2.0
PROJECT_EVENTS_MAX = 20_000
TRIM_PAUSE_S = 1.0
PROJECT_PERIOD_S = 0.05
PROJECT_AT_ONCE_EVENTS = 20
PROJECT_AT_ONCE_RATE = 200.0


def leads(status: Belief | MemberStatus) -> bool:
    """Whether this node believes that it leads."""
    return status.role == LEADER


class BeginDuty:
    """Makes the first revision of a new cluster, above the watermark, and keeps the policy as configured."""

    def __init__(
        self,
        replica: Replica,
        status: Status,
        submit: Submit,
        barrier: ReadBarrier,
        policy: Policy,
        *,
        has_database: bool,
    ) -> None:
        self._replica = replica
        self._status = status
        self._submit = submit
        self._barrier = barrier
        self._policy = policy
        self._has_database = has_database
        self._done_in_term = -1

    def step(self) -> bool:
        """Once a term, on its leader: raise the revision where the rows are ahead, set the policy, tick."""
        status = self._status()
        if not leads(status) or status.term == self._done_in_term:
            return False
        self._barrier()  # from here on the state covers all that was ever acknowledged
        watermark = read_watermark() if self._has_database else None
        with self._replica.reading() as state:
            revision, policy = state.revision, state.policy
        commands: list[AnyCommand] = []
        if watermark is not None and _is_above(watermark, status.cluster_id, revision):
            begin_at = watermark.revision + REVISION_MARGIN
            commands.append(RevisionRaise(revision=begin_at, actor=ACTOR))
            log.warning("revision_raised", extra={"to": begin_at, "rows_showed": watermark.revision})
        if policy != self._policy:
            commands.append(PolicySet(policy=self._policy, actor=ACTOR))
        commands.append(Tick(elapsed_ms=0, term=status.term, actor=ACTOR))
        self._submit(commands)
        self._done_in_term = status.term
        log.info("term_begun", extra={"term": status.term, "node": status.node_id})
        return True


def _is_above(watermark: Watermark, cluster_id: str, revision: int) -> bool:
    """Whether the rows show what this cluster does not have: it lost data, or another one was before it."""
    is_foreign = watermark.revision > 0 and watermark.cluster_id != cluster_id
    return watermark.revision > revision or (is_foreign and watermark.revision == revision)


class TickDuty:
    """Moves the machine's clock by what the leader's monotonic clock says, while anything waits for it."""

    def __init__(
        self,
        replica: Replica,
        status: Status,
        submit: Submit,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replica = replica
        self._status = status
        self._submit = submit
        self._monotonic_s = monotonic_s
        self._term = -1
        self._ticked_s: float | None = None

    def step(self) -> bool:
        """Propose one tick if it is time; True where the machine has more to end than one tick may."""
        status = self._status()
        if not leads(status):
            self._ticked_s = None
            return False
        if status.term != self._term:
            self._term, self._ticked_s = status.term, None
        is_outstanding, is_begun = self._replica.read(_tick_view)
        if not is_begun or not is_outstanding:
            # Time stands still while nothing waits for it; the next tick begins a new measurement.
            self._ticked_s = None
            return False
        now_s = self._monotonic_s()
        elapsed_ms = 0 if self._ticked_s is None else int((now_s - self._ticked_s) * 1000)
        if self._ticked_s is not None and elapsed_ms < TICK_MS // 2:
            return False
        return self._tick(elapsed_ms, now_s)

    def _tick(self, elapsed_ms: int, now_s: float) -> bool:
        if self._ticked_s is None or elapsed_ms > TICK_COUNTED_MS_MAX:
            measured_s, elapsed_ms = now_s, min(elapsed_ms, TICK_COUNTED_MS_MAX)
        else:
            measured_s = self._ticked_s + elapsed_ms / 1000  # what is below a millisecond stays for the next
        try:
            (outcome,) = self._submit([Tick(elapsed_ms=elapsed_ms, term=self._term, actor=ACTOR)])
        except CoordinationError as failure:
            # Perhaps applied, perhaps not: counting that time as gone can only make a lease longer.
            self._ticked_s = measured_s
            meters.TICKS.labels("lost").inc()
            log.info("tick_lost", extra={"reason": str(failure)})
            return False
        self._ticked_s = measured_s
        meters.TICKS.labels("accepted" if isinstance(outcome, Accepted) else "rejected").inc()
        return isinstance(outcome, Accepted) and isinstance(outcome.value, TickAnswer) and outcome.value.more


def _tick_view(state: State) -> tuple[bool, bool]:
    return has_outstanding(state), state.term > 0


class FeedDuty:
    """Offers to the machine the pending rows it does not know: after a crash between row and command, where
    the queue was full, where a dependency was not known yet.
    """

    def __init__(self, status: Status, submit: Submit) -> None:
        self._status = status
        self._submit = submit

    def step(self) -> bool:
        """Offer up to FEED_ROWS_MAX rows; True where the machine took any, so there may be more."""
        if not leads(self._status()):
            return False
        seen_revision = read_watermark().revision  # before the rows are read
        rows = list(
            DistributedTask.objects.unknown_to_machine(FEED_ROWS_MAX).select_related("target_session")
        )
        if not rows:
            return False
        dependencies = dependencies_of({row.pk for row in rows})
        offers = [
            offer_of(
                row,
                dependencies[row.pk],
                request_id=b"",
                actor=row.created_by or ACTOR,
                seen_revision=seen_revision,
            )
            for row in rows
        ]
        outcomes = self._submit(offers)
        taken = 0
        for row, outcome in zip(rows, outcomes, strict=True):
            is_new = isinstance(outcome, Accepted) and not getattr(outcome.value, "known", False)
            taken += is_new
            meters.TASKS_FED.labels("taken" if isinstance(outcome, Accepted) else str(outcome.code)).inc()
            if isinstance(outcome, Rejected):
                log.info("offer_refused", extra={"task": str(row.pk), "code": str(outcome.code)})
        return taken == FEED_ROWS_MAX


class ScheduleDuty:
    """Assigns tasks to sessions that take pushed ones. A listener: it looks when something changed."""

    def __init__(self, replica: Replica, status: Status, submit: Submit) -> None:
        self._replica = replica
        self._status = status
        self._submit = submit
        self._is_changed = True
        self._looked_s = 0.0
        self._bell = threading.Event()

    def await_change(self, timeout_s: float) -> None:
        """Return when there may be work, or after a while."""
        self._bell.wait(timeout_s)
        self._bell.clear()

    def on_events(self, events: list[Recorded]) -> None:
        """Look again where a task or a session became free."""
        if not self._is_changed and any(made_claimable(recorded.event) for recorded in events):
            self._is_changed = True
            self._bell.set()

    def on_restored(self) -> None:
        """Look again."""
        self._is_changed = True
        self._bell.set()

    def step(self) -> bool:
        """Propose up to SCHEDULE_MAX assignments; True where one was made, so there may be more."""
        if not leads(self._status()):
            return False
        if not self._is_changed and time.monotonic() - self._looked_s < SCHEDULE_RECHECK_S:
            return False
        self._is_changed, self._looked_s = False, time.monotonic()
        task_ids = self._replica.read(lambda state: plan_assignments(state, SCHEDULE_MAX))
        if not task_ids:
            return False
        outcomes = self._submit([TaskAssign(task_id=task_id, actor=ACTOR) for task_id in task_ids])
        made = sum(isinstance(outcome, Accepted) for outcome in outcomes)
        meters.TASKS_PUSHED.labels("assigned").inc(made)
        meters.TASKS_PUSHED.labels("refused").inc(len(outcomes) - made)
        if made:
            self._is_changed = True
        return made > 0


class Pace:
    """When the next transaction may begin: at once while events are few, else one in PROJECT_PERIOD_S.

    A transaction costs some milliseconds whatever it holds, so under load fewer and larger ones leave the
    processor to those who wait for answers. Events count for as long as PROJECT_AT_ONCE_RATE takes to work
    them off.
    """

    def __init__(self) -> None:
        self._began_s = 0.0
        self._debt = 0.0

    def note(self, events: int, now_s: float) -> None:
        """A transaction of so many events began."""
        self._debt = max(0.0, self._debt - (now_s - self._began_s) * PROJECT_AT_ONCE_RATE) + events
        self._began_s = now_s

    def rest_s(self, now_s: float) -> float:
        """How long to gather events before the next one."""
        passed_s = now_s - self._began_s
        if self._debt - passed_s * PROJECT_AT_ONCE_RATE < PROJECT_AT_ONCE_EVENTS:
            return 0.0
        return max(0.0, PROJECT_PERIOD_S - passed_s)


class ProjectDuty:
    """Writes events into PostgreSQL on the leader; elsewhere keeps those that are not written yet."""

    def __init__(self, replica: Replica, status: Status, backlog: Backlog) -> None:
        self._replica = replica
        self._status = status
        self._backlog = backlog
        self._pace = Pace()
        self._trimmed_s = 0.0
        self.revision = 0

    def rest_s(self) -> float:
        """How long to wait, once there are events, before the next step."""
        return self._pace.rest_s(time.monotonic())

    def step(self) -> bool:
        """One transaction; True where the next would be full. Database errors are raised after the connection closed."""
        status = self._status()
        meters.PROJECTION_BACKLOG.set(len(self._backlog))
        try:
            if leads(status):
                return self._project(status)
            self._trim()
        except DatabaseError:
            meters.PROJECTION_FAILURES.inc()
            connection.close()
            raise
        return False

    def _project(self, status: Belief | MemberStatus) -> bool:
        events = self._backlog.first(PROJECT_EVENTS_MAX)
        if not events:
            return self._catch_up(status)
        author = Author(status.node_id, status.cluster_id, status.term)
        self._pace.note(len(events), time.monotonic())
        began_s = time.perf_counter()
        try:
            self._note(project(events, author))
        except Gap as gap:
            log.warning("projection_gap", extra={"watermark": gap.watermark.revision})
            self._close_gap(gap, author)
        else:
            meters.PROJECTED_EVENTS.inc(len(events))
        meters.PROJECTION_SECONDS.observe(time.perf_counter() - began_s)
        self._backlog.drop_through(self.revision)
        return len(self._backlog) >= PROJECT_EVENTS_MAX

    def _catch_up(self, status: Belief | MemberStatus) -> bool:
        """After a restart from a snapshot the state may be ahead of the rows with no event on its way."""
        if time.monotonic() - self._trimmed_s < TRIM_PAUSE_S:
            return False
        self._trimmed_s = time.monotonic()
        watermark = read_watermark()
        self._note(watermark.revision)
        revision = self._replica.read(lambda state: state.revision)
        if revision > watermark.revision and len(self._backlog) == 0:
            self._close_gap(
                Gap(watermark, watermark.revision + 1),
                Author(status.node_id, status.cluster_id, status.term),
            )
        return False

    def _close_gap(self, gap: Gap, author: Author) -> None:
        """From the events the state itself still has, or else from the state."""
        missed = self._replica.events_after(gap.watermark.revision)
        if missed and gap.watermark.cluster_id in ("", author.cluster_id):
            try:
                self._note(project(missed, author))
            except Gap:
                pass
            else:
                return
        state = state_of(decode_snapshot(self._replica.encoded()))
        try:
            self._note(reconcile(state, author))
        except Behind as behind:
            log.warning("reconciliation_waits", extra={"reason": str(behind)})
            return
        meters.RECONCILIATIONS.inc()
        log.warning("projection_reconciled", extra={"from": gap.watermark.revision, "to": state.revision})

    def _trim(self) -> None:
        if time.monotonic() - self._trimmed_s < TRIM_PAUSE_S:
            return
        self._trimmed_s = time.monotonic()
        self._note(read_watermark().revision)
        self._backlog.drop_through(self.revision)

    def _note(self, revision: int) -> None:
        self.revision = revision
        meters.PROJECTION_REVISION.set(revision)
        behind = self._replica.read(lambda state: state.revision) - revision
        meters.PROJECTION_LAG.set(max(0, behind))
