"""The detection worker: reads what was stored, folds it, writes what was decided. One `step` at a time.

The fold is per classroom (usability.detection.classroom): class-wide signals and the alert budget need all
pupils of a class in one place. So the stream is partitioned by classroom, a partition has one owner, and the
classroom's row is locked while its alerts are numbered.

What makes it safe to kill: decisions are a function of the stored rows and their receipts, they are written
once by name and revision, and each transaction checks that the partition is still ours. A successor takes
the last checkpoint, or nothing, reads the rows received since, comes to the same decisions and writes those
that are missing. Redis only makes it quicker; without it rows are polled.
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
    from collections.abc import Callable, Iterable

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
FENCED = Counter("gaia_detection_fenced_total", "Writes refused because the partition had another owner")


@dataclass(slots=True)
class Room:
    """One classroom in memory: the state that is written, and what has arrived since."""

    classroom_id: uuid.UUID
    partition: int
    state: ClassroomState
    policy: RoomPolicy
    waiting: list[Observation] = field(default_factory=list)
    checkpoint_due_s: float = 0.0


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
        self.held, self.rooms = {}, {}
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
        rows = self._stream.read(now, block_ms=self._block_ms)
        self._sort(rows)
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
            self._set_up(gained, now)
            log.info("partitions_taken", extra={"worker": self.name, "partitions": sorted(self.held)})
        self._add_new_rooms(now)

    def _epoch(self, number: int) -> int | None:
        holding = self.held.get(number)
        return holding.epoch if holding else None

    def _set_up(self, gained: list[Holding], now: dt.datetime) -> None:
        """Bring the rooms of these partitions to the present, and write what the predecessor did not."""
        holdings = {one.partition: one for one in gained}
        wanted = [one for one in _classroom_ids() if _partition(one) in holdings]
        policies = room_policies(wanted, now)
        checkpoints = {row.classroom_id: row for row in RoomCheckpoint.objects.filter(classroom__in=wanted)}
        for classroom_id in wanted:
            holding = holdings[_partition(classroom_id)]
            self._set_up_room(
                classroom_id, holding, policies[classroom_id], checkpoints.get(classroom_id), now
            )
        if holdings:
            self._stream.sweep_from(now - SETTLE)

    def _add_new_rooms(self, now: dt.datetime) -> None:
        """Rooms of classes that were made since; they have no history that matters."""
        new = [one for one in _classroom_ids() if _partition(one) in self.held and one not in self.rooms]
        if not new:
            return
        policies = room_policies(new, now)
        for classroom_id in new:
            self._set_up_room(
                classroom_id, self.held[_partition(classroom_id)], policies[classroom_id], None, now
            )

    def _set_up_room(
        self,
        classroom_id: uuid.UUID,
        holding: Holding,
        policy: RoomPolicy,
        checkpoint: RoomCheckpoint | None,
        now: dt.datetime,
    ) -> None:
        state = _decoded(checkpoint, now)
        if state is None:
            REBUILDS.labels("rows").inc()
            state, since = room_fold.start(str(classroom_id)), now - REBUILD
        else:
            REBUILDS.labels("checkpoint").inc()
            since = from_ms(state.clock_ms) - SETTLE
        rows = _stored_rows(classroom_id, policy, since, now)
        self._stream.mark_seen(row.id for row in rows)
        room = Room(classroom_id, holding.partition, state, policy)
        room.waiting = [observation_of(row) for row in rows]
        self.rooms[classroom_id] = room
        self._fold_rooms(holding, [room], now, repeated_before=holding.judged_until)

    # ------------------------------------------------------------ rows to rooms

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
        is_cursor_due = self._is_due("_cursor_s", CURSOR_EVERY_S)
        written = 0
        for partition, rooms in sorted(by_partition.items()):
            written += self._fold_rooms(self.held[partition], rooms, now, write_cursor=is_cursor_due)
        if is_cursor_due:
            self._tell_backlog(now)
        self._checkpoint()
        return written

    def _fold_rooms(
        self,
        holding: Holding,
        rooms: list[Room],
        now: dt.datetime,
        *,
        repeated_before: dt.datetime | None = None,
        write_cursor: bool = False,
    ) -> int:
        """Fold what waits in these rooms of one partition and write what was decided, in one transaction.

        The rooms take their new states only after the commit.
        """
        judged_until = now - LAG
        folded = [(room, *_folded(room, to_ms(judged_until))) for room in rooms]
        decided = {
            room.classroom_id: _not_repeated(found, repeated_before) for room, _, found in folded if found
        }
        written = 0
        if any(decided.values()) or write_cursor:
            with transaction.atomic():
                ownership.check(self.name, holding, judged_until=judged_until)
                for classroom_id in sorted(decided):
                    written += decisions.write(classroom_id, decided[classroom_id], now=now)
        for room, state, _ in folded:
            room.state, room.waiting = state, []
        return written

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
            judged_until = from_ms(room.state.clock_ms)
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


def _folded(room: Room, now_ms: int) -> tuple[ClassroomState, list[Decision]]:
    """The room at `now_ms`. Receipts after it, of a clock that runs ahead, do not hold it back."""
    return room_fold.step(
        room.state,
        room.waiting,
        now_ms=now_ms,
        roster=room.policy.roster,
        profile=room.policy.profile,
        app_profiles=room.policy.app_profiles,
        controls=room.policy.controls,
    )


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
