"""The machine: bytes of the log in, outcomes and recorded events out, state within.

Its contract with the log, as in hashicorp/raft's FSM:

1. `apply` is called with each committed payload, once, in log order, from one thread. It never raises
   because of what a payload holds: a refusal is a value. A failed assertion means this code is wrong.
2. The same payloads give the same state, outcomes and events on every member.
3. `snapshot` is taken between two applies; its bytes depend on nothing but the state.
4. `restore` replaces the state by a snapshot's, and raises `codec.Undecodable` before it changes anything.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from . import codec
from . import commands as c
from .capture import Capture
from .commands import AnyCommand
from .events import AnyEvent, ClockMoved, LockAcquired, LockWaitExpired, Recorded
from .evolve import evolve
from .kinds import RejectionCode
from .outcomes import Accepted, LockAnswer, Outcome, Rejected, Value
from .policy import Policy
from .rules import lessons, locks, sessions, tasks, time
from .rules.decision import Decision, Refusal, StepEnds
from .state import State, forget_oldest, snapshot_of, state_of

_RULES: dict[type, Callable[[State, Any], Decision]] = {
    c.SessionRegister: sessions.register,
    c.SessionHeartbeat: sessions.heartbeat,
    c.SessionUpdate: sessions.update,
    c.SessionTransition: sessions.transition,
    c.SessionFailure: sessions.fail,
    c.SessionDeregister: sessions.deregister,
    c.TaskEnqueue: tasks.enqueue,
    c.TaskAssign: tasks.assign,
    c.TaskClaim: tasks.claim,
    c.TaskStart: tasks.start,
    c.TaskRenew: tasks.renew,
    c.TaskComplete: tasks.complete,
    c.TaskFail: tasks.fail,
    c.TaskCancel: tasks.cancel,
    c.TaskRetry: tasks.retry,
    c.TaskUpdate: tasks.update,
    c.TaskDelete: tasks.delete,
    c.LessonArchive: lessons.archive,
    c.LessonDelete: lessons.delete,
    c.LockAcquire: locks.acquire,
    c.LockRenew: locks.renew,
    c.LockRelease: locks.release,
    c.LockWaitCancel: locks.cancel_wait,
    c.AffinitySet: lessons.set_affinity,
    c.AffinityDelete: lessons.delete_affinity,
    c.Tick: time.tick,
    c.PolicySet: time.set_policy,
    c.RevisionRaise: time.raise_revision,
}


_ENDS_A_WAIT = frozenset({LockAcquired, LockWaitExpired})


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a payload came to: one outcome for each command, in order, and the events of those that
    changed something. No revision was made where `last_revision < first_revision`.
    """

    first_revision: int
    last_revision: int
    outcomes: list[Outcome]
    events: list[Recorded]


class Machine:
    """One member's copy of the state, changed by the log alone."""

    def __init__(self, policy: Policy | None = None) -> None:
        self._state = State(policy or Policy())

    @property
    def state(self) -> State:
        """Read it from the thread that applies; never change it."""
        return self._state

    def apply(self, payload: bytes) -> Applied:
        """Decide every command of a payload, in order."""
        state = self._state
        before = state.revision
        outcomes: list[Outcome] = []
        events: list[Recorded] = []
        try:
            stamp_ms, commands = codec.decode_commands(payload)
        except codec.Undecodable as error:
            return Applied(
                first_revision=before + 1,
                last_revision=before,
                outcomes=[_undecodable(state, error)],
                events=[],
            )
        state.stamp_ms = max(state.stamp_ms, stamp_ms)
        for command in commands:
            if isinstance(command, codec.Undecodable):
                outcomes.append(_undecodable(state, command))
            else:
                outcomes.append(self._answer(command, events))
        return Applied(
            first_revision=before + 1, last_revision=state.revision, outcomes=outcomes, events=events
        )

    def snapshot(self) -> bytes:
        """The bytes of the whole state."""
        return codec.encode_snapshot(snapshot_of(self._state))

    def capture(self) -> Capture:
        """The same bytes in pieces, each of which may be asked for after further payloads were applied."""
        return Capture(self._state)

    def restore(self, snapshot: bytes) -> None:
        """Replace the state by a snapshot's."""
        self._state = state_of(codec.decode_snapshot(snapshot))

    def events_after(self, revision: int) -> list[Recorded] | None:
        """The recorded events after this revision; None where the ring no longer reaches back to it."""
        ring = self._state.ring
        if revision >= self._state.revision:
            return []
        if not ring or (ring[0].revision, ring[0].sequence) > (revision + 1, 0):
            return None
        return [recorded for recorded in ring if recorded.revision > revision]

    def _answer(self, command: AnyCommand, events: list[Recorded]) -> Outcome:
        """The remembered outcome of a request that was decided before, else a decision."""
        request_id = command.request_id
        if not request_id:
            return self._decide(command, events)
        remembered = self._state.remembers(request_id)
        if remembered is not None:
            return remembered
        before = self._state.revision
        outcome = self._decide(command, events)
        self._remember(request_id, outcome, changed=self._state.revision > before)
        return outcome

    def _decide(self, command: AnyCommand, events: list[Recorded]) -> Outcome:
        """Run the rule to its end; each event is evolved before the rule goes on."""
        state = self._state
        decision = _RULES[type(command)](state, command)
        made: list[AnyEvent] = []
        before = state.revision
        while True:
            try:
                step = next(decision)
            except StopIteration as end:
                result: Value | Refusal = end.value
                break
            if isinstance(step, StepEnds):
                self._record(made, command.actor, events)
                made = []
                continue
            evolve(state, step)
            if not isinstance(step, ClockMoved):
                made.append(step)
        self._record(made, command.actor, events)
        if isinstance(result, Refusal):
            assert state.revision == before, (
                f"{type(command).__name__} was refused after it changed something"
            )
            return Rejected(revision=state.revision, code=result.code, detail=result.detail, data=result.data)
        return Accepted(revision=state.revision, value=result)

    def _record(self, made: list[AnyEvent], actor: str, events: list[Recorded]) -> None:
        """Give these events, if there are any, the next revision."""
        if not made:
            return
        state = self._state
        state.revision += 1
        for sequence, event in enumerate(made):
            recorded = Recorded(
                revision=state.revision,
                sequence=sequence,
                stamp_ms=state.stamp_ms,
                clock_ms=state.clock_ms,
                event=event,
                actor=actor,
            )
            events.append(recorded)
            state.ring.append(recorded)
            if type(event) in _ENDS_A_WAIT:
                self._answer_waiter(event)
        while len(state.ring) > state.policy.event_ring:
            state.ring.popleft()

    def _answer_waiter(self, event: Any) -> None:
        """A request that was queued is over: from now on it is answered with how it ended."""
        if event.request_id not in self._state.remembered:
            return
        if isinstance(event, LockAcquired):
            answer = LockAnswer(
                state="held",
                lock_key=event.lock_key,
                owner_id=event.owner_id,
                fencing_token=event.fencing_token,
                expires_ms=event.expires_ms,
                ttl_ms=event.ttl_ms,
            )
        else:
            answer = LockAnswer(state="expired", lock_key=event.lock_key, owner_id=event.owner_id)
        self._state.remembered[event.request_id] = Accepted(revision=self._state.revision, value=answer)

    def _remember(self, request_id: bytes, outcome: Outcome, *, changed: bool) -> None:
        """For the request's repetition. What changed nothing is kept apart, so that many empty claims crowd out no
        grant; it is kept at all because a repetition that overtakes its answer must not act after all.
        """
        state = self._state
        remembered = state.remembered if changed else state.remembered_idle
        bound = state.policy.remembered_outcomes if changed else state.policy.remembered_idle
        remembered[request_id] = outcome
        forget_oldest(remembered, bound)


def _undecodable(state: State, error: codec.Undecodable) -> Rejected:
    return Rejected(revision=state.revision, code=RejectionCode.UNDECODABLE, detail=str(error))
