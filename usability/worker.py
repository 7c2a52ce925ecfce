"""The detection worker: reads what was stored, folds it, writes what was decided. One `step` at a time.

The fold is per classroom (usability.detection.classroom): class-wide signals and the alert budget need all
pupils of a class in one place. So the stream is partitioned by classroom, a partition has one owner, and the
classroom's row is locked while its alerts are numbered.

What makes it safe to kill: decisions are a function of the stored rows and their receipts, they are written
once by name and revision, and each transaction checks that the partition is still ours. A successor takes
the last checkpoint, or nothing, reads the rows received since, comes to the same decisions and writes those
that are missing. Redis only makes it quicker; without it rows are polled.

No class stalls the others. A step folds a bounded slice of what waits, shared out among the rooms, so leases
are renewed in time whatever the backlog; and an observation that a detector cannot take is left out alone.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from django.db import Error as DatabaseError
from django.db import transaction
from prometheus_client import Counter, Gauge, Histogram

from usability import decisions, ownership
from usability.detection import classroom as room_fold
from usability.ingest.rows import SETTLE, rows_of_class
from usability.ingest.stream import StreamRow, observation_of
from usability.models import Classroom, DetectionWorker, RoomCheckpoint
from usability.ownership import Fenced, Holding
from usability.policies import RoomPolicy, from_ms, room_policies, to_ms
from usability.querysets import TIMESTAMP_AFTER_RECEIPT
from usability.stored_stream import OLDEST_THAT_COUNTS, StoredStream
from usability.stream_partition import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from usability.detection.classroom import ClassroomState, Decision
    from usability.detection.observations import Observation

log = logging.getLogger("gaia.detection")

# A row is visible some time after its receipt. The fold's clock runs behind by this, so that what was
# received before a moment has nearly always arrived when the clock gets there.
LAG = dt.timedelta(milliseconds=200)
STEP_EVERY_S = 0.1
POLICIES_EVERY_S = 1.0
CHECKPOINT_EVERY_S = 20.0
CURSOR_EVERY_S = 2.0
# How far back a room without a checkpoint is read, and at most how many rows.
REBUILD = dt.timedelta(hours=2)
REBUILD_ROWS = 100_000
# The most observations one step folds, all rooms together, and of one room at least. A step then takes a
# fraction of the time a lease lasts.
STEP_ROWS = 8_000
SLICE_AT_LEAST = 100
# With so many waiting nothing more is read: the stream and the rows keep them meanwhile.
WAITING_MAX = 50_000
# The longest that one step brings rooms into memory.
SET_UP_S = 0.5
# A room whose state could not be folded at all is built again from its rows, but not at once.
BROKEN_FOR_S = 30.0
# Decisions so much older than what the predecessor had judged were written by it.
REPEATED = dt.timedelta(seconds=60)
BLOCK_MS = 100
_ALWAYS = 1 << 62

STEP_SECONDS = Histogram(
    "gaia_detection_step_seconds",
    "Time of one step of the worker that had rows or decisions",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
HELD = Gauge("gaia_detection_partitions", "Partitions this worker holds")
BACKLOG = Gauge("gaia_detection_backlog_seconds", "How far the fold's clock is behind now")
REBUILDS = Counter("gaia_detection_rebuilds_total", "Rooms set up again", ["source"])
LEFT_OUT = Counter("gaia_detection_left_out_total", "Observations a detector failed on, left out alone")
BROKEN = Counter(
    "gaia_detection_broken_rooms_total", "Rooms whose state could not be folded, to be built again"
)
FENCED = Counter("gaia_detection_fenced_total", "Writes refused because the partition had another owner")


@dataclass(slots=True)
class Room:
    """One classroom in memory: the state that is written, and what has arrived since.

    `repeated_before`: up to there the predecessor had judged, while the room has not caught up with it.
    """

    classroom_id: uuid.UUID
    partition: int
    state: ClassroomState
    policy: RoomPolicy
    waiting: list[Observation] = field(default_factory=list)
    checkpoint_due_s: float = 0.0
    repeated_before: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Folded:
    """A room after one slice: its new state, what was decided on the way, what still waits."""

    room: Room
    state: ClassroomState
    decisions: list[Decision]
    waiting: list[Observation]


class Worker:
    """Detects in the partitions it holds. `clock` gives the present, an aware datetime.

    Any database error drops everything held in memory: the next step sets it up again from the rows.
    """

    def __init__(
        self,
        name: str,
        *,
        redis_url: str | None,
        clock: Callable[[], dt.datetime],
        monotonic_s: Callable[[], float] = time.monotonic,
        block_ms: int = BLOCK_MS,
    ) -> None:
        self.name = name
        self.held: dict[int, Holding] = {}
        self.rooms: dict[uuid.UUID, Room] = {}
        self._to_set_up: dict[uuid.UUID, float] = {}
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._block_ms = block_ms
        self._stream = StoredStream(redis_url, monotonic_s)
        self._renewed_s = self._stepped_s = self._policies_s = self._cursor_s = float("-inf")

    def step(self) -> bool:
        """Do what is due; whether there was work. Raises django.db.Error after forgetting all state."""
        try:
            return self._step()
        except Fenced as fenced:
            FENCED.inc()
            log.warning("partition_fenced", extra={"worker": self.name, "why": str(fenced)})
            self.forget()
            return True
        except DatabaseError:
            self.forget()
            raise

    def forget(self) -> None:
        """Drop what is in memory; rows and leases stay, and the next step begins from them."""
        self.held, self.rooms, self._to_set_up = {}, {}, {}
        self._stream.follow(())
        self._renewed_s = float("-inf")

    def stop(self) -> None:
        """Save where it stands and let everything go."""
        for room in list(self.rooms.values()):
            if room.partition in self.held:
                self._save(room)
        ownership.release(self.name)
        self.forget()
        self._stream.close()

    def _step(self) -> bool:
        now = self._clock()
        if self._is_due("_renewed_s", ownership.RENEW_EVERY_S if self.held else ownership.ASK_EVERY_S):
            self._renew(now)
        self._set_up_next(now)
        rows = self._read(now)
        if self._is_due("_policies_s", POLICIES_EVERY_S):
            self._refresh_policies(self._clock())
        if not self._is_due("_stepped_s", STEP_EVERY_S):
            return bool(rows)
        began_s = self._monotonic_s()
        written = self._fold(self._clock())
        if rows or written:
            STEP_SECONDS.observe(self._monotonic_s() - began_s)
        return bool(rows) or written > 0

    def _is_due(self, what: str, every_s: float) -> bool:
        at_s = self._monotonic_s()
        if at_s - getattr(self, what) < every_s:
            return False
        setattr(self, what, at_s)
        return True

    # ------------------------------------------------------------ who holds what

    def _renew(self, now: dt.datetime) -> None:
        held = ownership.renew(self.name, self.held.keys(), now=now)
        gained = [one for number, one in held.items() if self._epoch(number) != one.epoch]
        kept = {number: one for number, one in held.items() if self._epoch(number) == one.epoch}
        for room in list(self.rooms.values()):
            if room.partition not in kept:
                del self.rooms[room.classroom_id]
        self.held = held
        HELD.set(len(held))
        if gained or len(kept) != len(held):
            self._stream.follow(held.keys())
            self._stream.sweep_from(now - SETTLE)
            log.info("partitions_taken", extra={"worker": self.name, "partitions": sorted(self.held)})
        wanted = [one for one in _classroom_ids() if _partition(one) in held and one not in self.rooms]
        self._to_set_up = {one: self._to_set_up.get(one, float("-inf")) for one in wanted}

    def _epoch(self, number: int) -> int | None:
        holding = self.held.get(number)
        return holding.epoch if holding else None

    def _set_up_next(self, now: dt.datetime) -> None:
        """Bring rooms that are ours into memory, as many as a step has time and room for."""
        at_s = self._monotonic_s()
        due = [one for one, after_s in self._to_set_up.items() if after_s <= at_s]
        if not due:
            return
        policies = room_policies(due, now)
        for classroom_id in due:
            if self._waiting() >= WAITING_MAX or self._monotonic_s() - at_s > SET_UP_S:
                return
            del self._to_set_up[classroom_id]
            holding = self.held.get(_partition(classroom_id))
            if holding is not None and classroom_id in policies:
                self._set_up_room(classroom_id, holding, policies[classroom_id], now)

    def _set_up_room(
        self,
        classroom_id: uuid.UUID,
        holding: Holding,
        policy: RoomPolicy,
        now: dt.datetime,
    ) -> None:
        """The room as its predecessor left it, with what was received since waiting to be folded."""
        state = _decoded(RoomCheckpoint.objects.filter(classroom=classroom_id).first(), now)
        if state is None:
            REBUILDS.labels("rows").inc()
            state, since = room_fold.start(str(classroom_id)), now - REBUILD
        else:
            REBUILDS.labels("checkpoint").inc()
            since = from_ms(state.clock_ms) - SETTLE
        rows = _stored_rows(classroom_id, policy, since, now)
        self._stream.mark_seen(row.id for row in rows)
        self.rooms[classroom_id] = Room(
            classroom_id,
            holding.partition,
            state,
            policy,
            waiting=[observation_of(row) for row in rows],
            repeated_before=holding.judged_until,
        )

    # ------------------------------------------------------------ rows to rooms

    def _waiting(self) -> int:
        return sum(len(room.waiting) for room in self.rooms.values())

    def _read(self, now: dt.datetime) -> list[StreamRow]:
        """What is new, sorted into its rooms; nothing while enough waits already.

        A room that is not in memory yet misses nothing: what is handed on here is stored, and read with the
        rest when the room is set up.
        """
        waiting = self._waiting()
        if waiting >= WAITING_MAX:
            return []
        rows = self._stream.read(now, block_ms=0 if waiting else self._block_ms)
        self._sort(rows)
        return rows

    def _sort(self, rows: Iterable[StreamRow]) -> None:
        for row in rows:
            if row.classroom_id is None:
                continue
            room = self.rooms.get(uuid.UUID(bytes=row.classroom_id))
            if room is not None:
                room.waiting.append(observation_of(row))

    def _refresh_policies(self, now: dt.datetime) -> None:
        policies = room_policies(self.rooms.keys(), now)
        for classroom_id, room in list(self.rooms.items()):
            if classroom_id in policies:
                room.policy = policies[classroom_id]
            else:
                del self.rooms[classroom_id]

    # ------------------------------------------------------------ folding and writing

    def _fold(self, now: dt.datetime) -> int:
        by_partition: dict[int, list[Room]] = defaultdict(list)
        for room in self.rooms.values():
            by_partition[room.partition].append(room)
        busy = sum(1 for room in self.rooms.values() if room.waiting)
        most = max(SLICE_AT_LEAST, STEP_ROWS // max(1, busy))
        is_cursor_due = self._is_due("_cursor_s", CURSOR_EVERY_S)
        written = 0
        for partition, rooms in sorted(by_partition.items()):
            written += self._fold_rooms(
                self.held[partition], rooms, now, most=most, write_cursor=is_cursor_due
            )
        if is_cursor_due:
            self._tell_backlog(now)
        self._checkpoint()
        return written

    def _fold_rooms(
        self, holding: Holding, rooms: list[Room], now: dt.datetime, *, most: int, write_cursor: bool
    ) -> int:
        """Fold up to `most` of what waits in each of these rooms of one partition, and write what was decided.

        All in one transaction; the rooms take their new states only after the commit.
        """
        folded = [one for room in rooms if (one := self._fold_room(room, to_ms(now - LAG), most))]
        decided = {
            one.room.classroom_id: _not_repeated(one.decisions, one.room.repeated_before)
            for one in folded
            if one.decisions
        }
        written = 0
        if any(decided.values()) or write_cursor:
            after = {one.room.classroom_id: one.state.clock_ms for one in folded}
            with transaction.atomic():
                ownership.check(self.name, holding, judged_until=self._judged_until(holding.partition, after))
                for classroom_id in sorted(decided):
                    written += decisions.write(classroom_id, decided[classroom_id], now=now)
        for one in folded:
            one.room.state, one.room.waiting = one.state, one.waiting
            if not one.waiting:
                one.room.repeated_before = None
        return written

    def _judged_until(self, partition: int, after: Mapping[uuid.UUID, int]) -> dt.datetime:
        """How far all rooms of a partition are judged; `after` has the clocks that are about to be written.

        A successor takes what is older for written, so a room that is not in memory yet holds it back.
        """
        if any(_partition(one) == partition for one in self._to_set_up):
            return self.held[partition].judged_until or from_ms(0)
        return from_ms(
            min(
                after.get(room.classroom_id, room.state.clock_ms)
                for room in self.rooms.values()
                if room.partition == partition
            )
        )

    def _fold_room(self, room: Room, now_ms: int, most: int) -> Folded | None:
        """The room after the next slice; None where its state can no longer be folded: it is built again."""
        try:
            return _folded(room, now_ms, most)
        except Exception:
            BROKEN.inc()
            log.exception("room_broken", extra={"classroom": str(room.classroom_id)})
            RoomCheckpoint.objects.filter(classroom=room.classroom_id).delete()
            del self.rooms[room.classroom_id]
            self._to_set_up[room.classroom_id] = self._monotonic_s() + BROKEN_FOR_S
            return None

    def _checkpoint(self) -> None:
        """Save one room whose turn it is: one a step spreads the work."""
        at_s = self._monotonic_s()
        due = min(self.rooms.values(), key=lambda room: room.checkpoint_due_s, default=None)
        if due is None or due.checkpoint_due_s > at_s:
            return
        if due.checkpoint_due_s == 0.0 and not due.state.desks:
            due.checkpoint_due_s = at_s + CHECKPOINT_EVERY_S
            return
        due.checkpoint_due_s = at_s + CHECKPOINT_EVERY_S
        self._save(due)

    def _save(self, room: Room) -> None:
        with transaction.atomic():
            judged_until = self._judged_until(room.partition, {})
            ownership.check(self.name, self.held[room.partition], judged_until=judged_until)
            RoomCheckpoint.objects.update_or_create(
                classroom_id=room.classroom_id,
                defaults={
                    "clock_ms": room.state.clock_ms,
                    "state": room_fold.encode(room.state),
                    "saved_at": self._clock(),
                },
            )

    def _tell_backlog(self, now: dt.datetime) -> None:
        oldest_ms = min((room.state.clock_ms for room in self.rooms.values()), default=to_ms(now))
        backlog_s = max(0.0, now.timestamp() - oldest_ms / 1000)
        BACKLOG.set(backlog_s)
        DetectionWorker.objects.filter(name=self.name).update(backlog_s=backlog_s)


def _folded(room: Room, now_ms: int, most: int) -> Folded:
    """The room with the `most` observations received first, at the moment of the last of them, or at `now_ms`.

    Receipts after `now_ms`, of a clock that runs ahead, do not hold it back. The result does not depend on
    how what waits is divided: the fold passes through every receipt.
    """
    waiting = sorted(room.waiting, key=room_fold.receipt_order)
    now_slice, later = waiting[:most], waiting[most:]
    until_ms = min(now_ms, now_slice[-1].received_ms) if later else now_ms
    state, found = room_fold.step(
        room.state,
        now_slice,
        now_ms=until_ms,
        roster=room.policy.roster,
        profile=room.policy.profile,
        app_profiles=room.policy.app_profiles,
        controls=room.policy.controls,
    )
    for one in found:
        if isinstance(one, room_fold.LeftOut):
            _tell_left_out(room, one)
    decided = [one for one in found if not isinstance(one, room_fold.LeftOut)]
    return Folded(room, state, decided, later)


def _tell_left_out(room: Room, left_out: room_fold.LeftOut) -> None:
    """Say to the operator, and to nobody else, that a detector failed on an observation."""
    LEFT_OUT.inc()
    about = {"classroom": str(room.classroom_id), "metric_type": left_out.metric_type}
    log.error("observation_left_out", extra={**about, "error": left_out.error})


def _not_repeated(found: list[Decision], judged_until: dt.datetime | None) -> list[Decision]:
    """Without decisions that the predecessor has certainly written. The rest is known by name and revision.

    A rebuilt beginning can only differ from what was at the far end of the look-back; this keeps it out.
    """
    if judged_until is None:
        return found
    since_ms = to_ms(judged_until - REPEATED)
    return [decision for decision in found if _moment_ms(decision) >= since_ms]


def _moment_ms(decision: Decision) -> int:
    match decision:
        case room_fold.Recovered(at_ms=at_ms) | room_fold.ClassStuckClosed(at_ms=at_ms):
            return at_ms
        case room_fold.ClassStuckOpened(card=card):
            return card.opened_ms
        case room_fold.ClassStuckUpdated():
            return _ALWAYS  # it says what is so now, however old its card is
        case room_fold.AppHealth(signal=signal):
            return signal.at_ms
        case _:
            return decision.episode.changed_ms


def _decoded(checkpoint: RoomCheckpoint | None, now: dt.datetime) -> ClassroomState | None:
    """The state of a checkpoint that can be used: of the present detectors, and not older than a rebuild."""
    if checkpoint is None or checkpoint.clock_ms < to_ms(now - REBUILD):
        return None
    try:
        return room_fold.decode(bytes(checkpoint.state))
    except msgspec.MsgspecError:
        log.warning("checkpoint_unreadable", extra={"classroom": str(checkpoint.classroom_id)})
        return None


def _stored_rows(
    classroom_id: uuid.UUID, policy: RoomPolicy, since: dt.datetime, now: dt.datetime
) -> list[StreamRow]:
    """What was received since of the pupils of a class, as stored; the newest where there is too much."""
    profiles = (policy.profile, *policy.app_profiles.values())
    oldest_s = min(max(profile.late_s for profile in profiles), int(OLDEST_THAT_COUNTS.total_seconds()))
    return rows_of_class(
        classroom_id,
        sorted(policy.roster),
        received_since=since,
        event_since=since - dt.timedelta(seconds=oldest_s),
        event_until=now + TIMESTAMP_AFTER_RECEIPT,
        limit=REBUILD_ROWS,
    )


def _classroom_ids() -> list[uuid.UUID]:
    return list(Classroom.objects.filter(is_archived=False).order_by("pk").values_list("pk", flat=True))


def _partition(classroom_id: uuid.UUID) -> int:
    return partition_of(classroom_id=str(classroom_id), student_id="")
