"""Random histories: whatever is wished, in whatever order, the rules of the machine hold after every step."""

from __future__ import annotations

import hashlib
from itertools import islice, pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coordination.machine import codec, commands, events
from coordination.machine.capture import Capture
from coordination.machine.commands import AnyCommand, Batch, TaskProgress, TaskSpec
from coordination.machine.invariants import check_invariants
from coordination.machine.kinds import DependencyPolicy, Health, SessionStatus, TaskStatus
from coordination.machine.machine import Applied, Machine
from coordination.machine.outcomes import Accepted, Outcome, Rejected
from coordination.machine.policy import Policy
from tests.machine.rows import Rows, project, rows_of

SMALL = Policy(
    max_sessions=3,
    max_tasks=8,
    max_locks=3,
    max_waiters_per_lock=2,
    max_affinities=2,
    max_directives=2,
    max_expiries_per_tick=3,
    event_ring=50,
    claim_ttl_ms=20_000,
    max_elapsed_ms=40_000,
)
names = st.sampled_from(["ann", "ben", "cay", "dan"])
task_ids = st.sampled_from([f"t{n}" for n in range(12)])
picks = st.integers(0, 11)  # which of the tasks that have a token
lessons = st.sampled_from(["", "L1", "L2", "L3"])
lock_keys = st.sampled_from(["k1", "k2", "k3", "k4"])
past = st.sampled_from([0] * 7 + [1, 2])  # how many grants ago a token was current: 0 is the one that counts


class Histories(RuleBasedStateMachine):
    """One machine, a second that is restored from snapshots now and then, and a reader of the events."""

    @initialize()
    def begin(self) -> None:
        self.machine, self.replica = Machine(SMALL), Machine(SMALL)
        self.rows: Rows = {}
        self.term = 1
        self.requests = 0
        self.tokens: dict[tuple[str, str], list[int]] = {}  # of each session, task and lock, as granted
        self.completed: set[str] = set()
        self.renewed: dict[str, int] = {}
        self.asked: list[tuple[AnyCommand, Outcome]] = []
        self.captured: list[tuple[Capture, list[bytes], bytes]] = []
        for name in ("ann", "ben"):
            self.register(name, 2, "L1", pushes=name == "ben", ago=0)
        for number in range(4):
            after = ["t0"] if number == 3 else []
            self.enqueue(f"t{number}", 0, "L1", after, 2, 0, DependencyPolicy.FAIL, "", 0)

    def wish(self, command: AnyCommand) -> Outcome:
        payload = codec.encode_batch(Batch(stamp_ms=1_700_000_000_000 + self.requests, commands=[command]))
        before = self.machine.state.revision
        applied = self.machine.apply(payload)
        assert self.replica.apply(payload) == applied, "every member answers the same"
        self._follow(before, applied)
        self.asked.append((command, applied.outcomes[0]))
        return applied.outcomes[0]

    def _follow(self, before: int, applied: Applied) -> None:
        assert applied.first_revision == before + 1
        revisions = [(one.revision, one.sequence) for one in applied.events]
        assert all(later == (r, s + 1) or later == (r + 1, 0) for (r, s), later in pairwise(revisions))
        assert {r for r, _ in revisions} == set(range(before + 1, applied.last_revision + 1))
        for recorded in applied.events:
            project(self.rows, recorded)
            self._check_time(recorded)
            self._note_token(recorded.event)

    def _note_token(self, event: events.AnyEvent) -> None:
        match event:
            case events.SessionRegistered():
                self._grow(("session", event.session_name), event.lease_token, resumed=event.how == "resumed")
            case events.TaskClaimed():
                assert event.task_id not in self.completed, "a completed task never runs again"
                self._grow(("task", event.task_id), event.claim_token)
            case events.LockAcquired():
                self._grow(("lock", event.lock_key), event.fencing_token)
            case events.TaskCompleted():
                self.completed.add(event.task_id)
            case events.TaskDeleted():
                self.completed.discard(event.task_id)

    def _grow(self, key: tuple[str, str], token: int, *, resumed: bool = False) -> None:
        granted = self.tokens.setdefault(key, [])
        if resumed:
            assert token == granted[-1]
            return
        assert not granted or token > granted[-1], f"{key} was granted {token} after {granted[-1]}"
        granted.append(token)

    def _check_time(self, recorded: events.Recorded) -> None:
        """A lease, claim or lock never ends before what was promised of it."""
        match recorded.event:
            case events.SessionRegistered() | events.SessionRenewed() as event:
                self.renewed[f"session {event.session_name}"] = recorded.clock_ms + SMALL.lease_ms
            case events.LockAcquired() | events.LockRenewed() as event:
                self.renewed[f"lock {event.lock_key}"] = recorded.clock_ms + event.ttl_ms
            case events.TermStarted() as event:
                self.renewed = {key: until + event.extended_ms for key, until in self.renewed.items()}
            case events.SessionExpired() as event:
                assert recorded.clock_ms >= self.renewed[f"session {event.session_name}"]
            case events.LockExpired() as event:
                assert recorded.clock_ms >= self.renewed[f"lock {event.lock_key}"]

    def token(self, kind: str, key: str, ago: int) -> int:
        granted = self.tokens.get((kind, key), [])
        return granted[-1 - ago] if ago < len(granted) else 0

    def granted_task(self, pick: int) -> str:
        """A claimed task, if there is one, else any."""
        claimed = sorted(task.task_id for task in self.machine.state.tasks.values() if task.claim)
        return claimed[pick % len(claimed)] if claimed else f"t{pick}"

    def owner_of(self, key: str, owner: str, ago: int) -> str:
        """Whoever holds a lock when its current token is used."""
        lock = self.machine.state.locks.get(key)
        return owner if ago or lock is None else lock.owner_id

    def request(self) -> bytes:
        self.requests += 1
        return hashlib.blake2b(str(self.requests).encode(), digest_size=16).digest()

    # Sessions

    @rule(name=names, most=st.integers(1, 3), lesson=lessons, pushes=st.booleans(), ago=past)
    def register(self, name, most, lesson, pushes, ago):
        self.wish(
            commands.SessionRegister(
                request_id=self.request(),
                session_id=f"id-{name}",
                session_name=name,
                max_concurrent_tasks=most,
                lesson_id=lesson,
                accepts_push=pushes,
                lease_token=self.token("session", name, ago),
            )
        )

    @rule(
        name=names,
        ago=past,
        tasks=st.lists(task_ids, max_size=3, unique=True),
        status=st.sampled_from([None, *SessionStatus]),
    )
    def heartbeat(self, name, ago, tasks, status):
        progress = tuple(
            TaskProgress(task_id=task_id, claim_token=self.token("task", task_id, 0), percent=50)
            for task_id in tasks
        )
        lease = self.token("session", name, ago)
        before = self.machine.state.session_named(name)
        status_before = before.status if before else None
        outcome = self.wish(
            commands.SessionHeartbeat(session_name=name, lease_token=lease, progress=progress, status=status)
        )
        if isinstance(outcome, Accepted) and status not in (SessionStatus.PAUSED, SessionStatus.DRAINING):
            assert outcome.value.status == status_before, "a heartbeat leaves the status alone"

    @rule(
        name=names,
        most=st.none() | st.integers(0, 3),
        lesson=st.none() | lessons,
        health=st.none() | st.sampled_from(Health),
    )
    def update_session(self, name, most, lesson, health):
        self.wish(
            commands.SessionUpdate(
                session_name=name, max_concurrent_tasks=most, lesson_id=lesson, health=health
            )
        )

    @rule(name=names, to=st.sampled_from([SessionStatus.PAUSED, SessionStatus.DRAINING, SessionStatus.IDLE]))
    def ask(self, name, to):
        self.wish(commands.SessionTransition(session_name=name, to=to))

    @rule(name=names)
    def fail_session(self, name):
        self.wish(commands.SessionFailure(session_name=name, reason="test"))

    @rule(name=names, ago=past)
    def goodbye(self, name, ago):
        self.wish(commands.SessionDeregister(session_name=name, lease_token=self.token("session", name, ago)))

    # Tasks

    @rule(
        task_id=task_ids,
        priority=st.integers(-2, 2),
        lesson=lessons,
        after=st.lists(task_ids, max_size=2, unique=True),
        most=st.integers(0, 2),
        delay_ms=st.sampled_from([0, 0, 5_000]),
        policy=st.sampled_from(DependencyPolicy),
        only=st.sampled_from(["", "", "ann"]),
        timeout_ms=st.sampled_from([0, 0, 25_000]),
    )
    def enqueue(self, task_id, priority, lesson, after, most, delay_ms, policy, only, timeout_ms):
        spec = TaskSpec(
            task_type="work",
            priority=priority,
            lesson_id=lesson,
            target_session=only,
            max_retries=most,
            timeout_ms=timeout_ms,
            on_dependency_failure=policy,
        )
        self.wish(
            commands.TaskEnqueue(
                request_id=self.request(),
                task_id=task_id,
                spec=spec,
                depends_on=tuple(after),
                delay_ms=delay_ms,
            )
        )

    @rule(name=names, ago=past, most=st.integers(1, 4))
    def claim(self, name, ago, most):
        outcome = self.wish(
            commands.TaskClaim(
                request_id=self.request(),
                session_name=name,
                lease_token=self.token("session", name, ago),
                max_tasks=most,
            )
        )
        if ago and self.token("session", name, ago):
            assert isinstance(outcome, Rejected), "a stale lease token claims nothing"

    @rule()
    def everybody_lives_and_works(self):
        for session in list(self.machine.state.sessions.values()):
            self.heartbeat(session.session_name, 0, [], None)
            self.claim(session.session_name, 0, 1)

    @rule(task_id=task_ids, name=st.just("") | names)
    def assign(self, task_id, name):
        self.wish(commands.TaskAssign(task_id=task_id, session_name=name))

    @rule(pick=picks, ago=past)
    def start(self, pick, ago):
        task_id = self.granted_task(pick)
        self._with_token(
            commands.TaskStart(task_id=task_id, claim_token=self.token("task", task_id, ago)), ago
        )

    @rule(pick=picks, ago=past, percent=st.integers(-1, 100))
    def renew(self, pick, ago, percent):
        task_id = self.granted_task(pick)
        token = self.token("task", task_id, ago)
        self._with_token(commands.TaskRenew(task_id=task_id, claim_token=token, percent=percent), ago)

    @rule(pick=picks, ago=past)
    def complete(self, pick, ago):
        task_id = self.granted_task(pick)
        token = self.token("task", task_id, ago)
        self._with_token(
            commands.TaskComplete(request_id=self.request(), task_id=task_id, claim_token=token), ago
        )

    @rule(pick=picks, ago=past, retryable=st.booleans())
    def fail(self, pick, ago, retryable):
        task_id = self.granted_task(pick)
        token = self.token("task", task_id, ago)
        self._with_token(
            commands.TaskFail(
                request_id=self.request(), task_id=task_id, claim_token=token, error="no", retryable=retryable
            ),
            ago,
        )

    def _with_token(self, command: AnyCommand, ago: int) -> None:
        before = self.machine.state.revision
        outcome = self.wish(command)
        if ago:
            assert isinstance(outcome, Rejected)
            assert self.machine.state.revision == before, "a stale token changes nothing"

    @rule(task_id=task_ids)
    def cancel(self, task_id):
        self.wish(commands.TaskCancel(task_id=task_id, reason="test"))

    @rule(task_id=task_ids, lesson=lessons)
    def retry(self, task_id, lesson):
        if task_id not in self.machine.state.finals:
            return
        spec = TaskSpec(task_type="work", lesson_id=self.machine.state.finals[task_id].lesson_id)
        self.wish(commands.TaskRetry(task_id=task_id, spec=spec))

    @rule(task_id=task_ids, priority=st.integers(-2, 2), delay_ms=st.sampled_from([None, 0, 3_000]))
    def update_task(self, task_id, priority, delay_ms):
        self.wish(commands.TaskUpdate(task_id=task_id, priority=priority, delay_ms=delay_ms))

    @rule(task_id=task_ids)
    def delete(self, task_id):
        self.wish(commands.TaskDelete(task_id=task_id))

    # Lessons, affinities, locks

    @rule(lesson=lessons, archived=st.booleans())
    def archive(self, lesson, archived):
        self.wish(commands.LessonArchive(lesson_id=lesson, archived=archived))

    @rule(lesson=st.sampled_from(["L3"]))
    def delete_lesson(self, lesson):
        self.wish(commands.LessonDelete(lesson_id=lesson))

    @rule(name=names, lesson=lessons | st.just(""), score=st.integers(-1, 1001))
    def set_affinity(self, name, lesson, score):
        self.wish(
            commands.AffinitySet(affinity_id="", session_name=name, lesson_id=lesson, score_milli=score)
        )

    @rule(name=names, lesson=lessons | st.just(""))
    def delete_affinity(self, name, lesson):
        self.wish(commands.AffinityDelete(session_name=name, lesson_id=lesson))

    @rule(
        key=lock_keys,
        owner=names,
        ttl_ms=st.sampled_from([0, 1, 5_000, 60_000]),
        wait_ms=st.sampled_from([0, 4_000, 60_000]),
    )
    def acquire(self, key, owner, ttl_ms, wait_ms):
        self.wish(
            commands.LockAcquire(
                request_id=self.request(), lock_key=key, owner_id=owner, ttl_ms=ttl_ms, wait_ms=wait_ms
            )
        )

    @rule(key=lock_keys, ago=past, owner=names)
    def renew_lock(self, key, ago, owner):
        owner = self.owner_of(key, owner, ago)
        self.wish(
            commands.LockRenew(lock_key=key, owner_id=owner, fencing_token=self.token("lock", key, ago))
        )

    @rule(key=lock_keys, ago=past, owner=names, force=st.booleans())
    def release(self, key, ago, owner, force):
        token = self.token("lock", key, ago)
        owner = self.owner_of(key, owner, ago)
        self.wish(
            commands.LockRelease(
                lock_key=key, owner_id=owner, fencing_token=token, force=force, reason="test"
            )
        )

    @rule(key=lock_keys, owner=names)
    def stop_waiting(self, key, owner):
        self.wish(commands.LockWaitCancel(lock_key=key, owner_id=owner))

    # Time, repetition, replacement

    @rule(
        elapsed_ms=st.sampled_from([0, 250, 250, 6_000, 16_000, 35_000]),
        new_term=st.sampled_from([False] * 9 + [True]),
    )
    def tick(self, elapsed_ms, new_term):
        self.term += new_term
        outcome = self.wish(commands.Tick(elapsed_ms=elapsed_ms, term=self.term))
        clock_ms = self.machine.state.clock_ms
        if not outcome.value.more:
            online = [session for session in self.machine.state.sessions.values() if session.is_online]
            assert all(session.lease_expires_ms > clock_ms for session in online), (
                "over at the first tick after"
            )
            assert all(lock.expires_ms > clock_ms for lock in self.machine.state.locks.values())
            due = [task.next_due_ms() for task in self.machine.state.tasks.values()]
            assert all(at is None or at > clock_ms for at in due)

    @rule(back=st.integers(1, 10))
    def repeat(self, back):
        """A request that was decided is answered with the first result and never applied twice."""
        if back > len(self.asked):
            return
        command, first = self.asked[-back]
        if not command.request_id:
            return
        before = self.machine.snapshot()
        outcome = self.wish(command)
        self.asked.pop()
        if isinstance(first, Accepted) and getattr(first.value, "state", "") == "queued":
            assert outcome.value.state in ("queued", "held", "expired")
        else:
            assert outcome == first
        after = self.machine.state.revision
        assert codec.decode_snapshot(before).revision == after

    @rule()
    def replace_the_replica(self):
        snapshot = self.machine.snapshot()
        self.replica = Machine()
        self.replica.restore(snapshot)

    @rule()
    def begin_a_snapshot_in_pieces(self):
        if len(self.captured) < 2:
            self.captured.append((self.machine.capture(), [], self.machine.snapshot()))

    @rule(pieces=st.integers(1, 12))
    def take_pieces_of_a_snapshot(self, pieces):
        for capture, taken, _ in self.captured:
            taken.extend(islice(capture, pieces))

    @rule()
    def end_a_snapshot_in_pieces(self):
        """Whatever was applied since, it tells of the moment at which it began."""
        for capture, taken, whole in self.captured:
            assert b"".join([*taken, *capture]) == whole
        self.captured.clear()
        assert not self.machine.state.captures

    @invariant()
    def everything_holds(self):
        check_invariants(self.machine.state)

    @invariant()
    def every_member_holds_the_same_bytes(self):
        assert self.replica.snapshot() == self.machine.snapshot()

    @invariant()
    def projected_events_are_the_rows_of_the_state(self):
        assert self.rows == rows_of(self.machine.state)

    @invariant()
    def no_task_is_lost(self):
        state = self.machine.state
        for (kind, task_id), row in self.rows.items():
            if kind == "task":
                live = row["status"] in (TaskStatus.PENDING, TaskStatus.ASSIGNED, TaskStatus.IN_PROGRESS)
                assert (task_id in state.tasks) == live
                assert (task_id in state.finals) != live


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=30, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
