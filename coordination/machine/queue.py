"""The claimable tasks, in an order that never lets one starve, found without a scan.

A task's place is `order_ms = enqueued_ms - priority * priority_step_ms`: the effective priority of all
pending tasks rises with age at the same rate, so their order among each other is fixed at enqueue and
every task is at the head in the end. Tasks that ask the same of a session share a lane; a claim looks at
the head of each lane that fits, and at the heads of the few lessons the session has a bonus for.
"""

from heapq import heapify, heappop, heappush
from typing import NamedTuple

from .commands import TaskSpec


class Place(NamedTuple):
    """Where a task stands: smaller first."""

    order_ms: int
    order_seq: int
    task_id: str


class LaneKey(NamedTuple):
    """What a session must fulfil to be given the tasks of a lane."""

    target_session: str
    tier: str
    capabilities: tuple[str, ...]
    task_type: str


def lane_key(spec: TaskSpec) -> LaneKey:
    """The lane a task belongs to."""
    return LaneKey(spec.target_session, spec.tier, spec.required_capabilities, spec.task_type)


class _Lane:
    __slots__ = ("everything", "key", "lessons", "size")

    def __init__(self, key: LaneKey) -> None:
        self.key = key
        self.everything: list[Place] = []
        self.lessons: dict[str, list[Place]] = {}
        self.size = 0


class Queue:
    """Lanes by target session, each a heap of places, and one more for each lesson in it."""

    __slots__ = ("_entries", "_lanes")

    def __init__(self) -> None:
        self._lanes: dict[str, dict[LaneKey, _Lane]] = {}  # by target session, "" for any
        self._entries: dict[str, tuple[Place, _Lane, str]] = {}  # by task, with its lesson

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._entries

    def add(self, task_id: str, spec: TaskSpec, order_ms: int, order_seq: int) -> None:
        """Let a task be claimed."""
        place = Place(order_ms, order_seq, task_id)
        lane = self._lane(lane_key(spec))
        self._entries[task_id] = (place, lane, spec.lesson_id)
        lane.size += 1
        heappush(lane.everything, place)
        if spec.lesson_id:
            lesson = lane.lessons.get(spec.lesson_id)
            if lesson is None:
                lane.lessons[spec.lesson_id] = [place]
            else:
                heappush(lesson, place)

    def _lane(self, key: LaneKey) -> _Lane:
        lanes = self._lanes.get(key.target_session)
        if lanes is None:
            lanes = self._lanes[key.target_session] = {}
        lane = lanes.get(key)
        if lane is None:
            lane = lanes[key] = _Lane(key)
        return lane

    def discard(self, task_id: str) -> None:
        """Take a task out, if it is in."""
        entry = self._entries.pop(task_id, None)
        if entry is None:
            return
        _, lane, lesson_id = entry
        lane.size -= 1
        if lane.size == 0:
            lanes = self._lanes[lane.key.target_session]
            del lanes[lane.key]
            if not lanes:
                del self._lanes[lane.key.target_session]
            return
        self._compact(lane.everything, lane.size)
        if lesson_id:
            self._compact(lane.lessons[lesson_id], lane.size)
            if self._head(lane.lessons[lesson_id]) is None:
                del lane.lessons[lesson_id]

    def best(self, key_fits: "LaneFilter", bonus_ms: dict[str, int]) -> tuple[Place, int] | None:
        """The first task in the order of places less the bonus of its lesson, and that bonus; None if nothing fits.

        Only the head of each lane that fits, and of each lesson with a bonus in it, can be that task.
        """
        best: Place | None = None
        best_order_ms = 0
        for target in ("", key_fits.session_name):
            for key, lane in self._lanes.get(target, {}).items():
                if not key_fits(key):
                    continue
                heaps = [lane.everything]
                if bonus_ms and lane.lessons:
                    heaps += [lane.lessons[lesson] for lesson in bonus_ms if lesson in lane.lessons]
                for heap in heaps:
                    head = self._head(heap)
                    if head is None:
                        continue
                    order_ms = head.order_ms
                    if bonus_ms:
                        order_ms -= bonus_ms.get(self._entries[head.task_id][2], 0)
                    if best is None or (order_ms, head) < (best_order_ms, best):
                        best, best_order_ms = head, order_ms
        return None if best is None else (best, best.order_ms - best_order_ms)

    def _head(self, heap: list[Place]) -> Place | None:
        entries = self._entries
        while heap:
            head = heap[0]
            entry = entries.get(head.task_id)
            if entry is not None and entry[0] is head:
                return head
            heappop(heap)
        return None

    def _compact(self, heap: list[Place], size: int) -> None:
        """Drop the entries of discarded tasks once they are the most; until then they go as they surface."""
        if len(heap) <= 2 * size + 64:
            return
        heap[:] = [place for place in heap if self._is_current(place)]
        heapify(heap)

    def _is_current(self, place: Place) -> bool:
        """Whether this entry is the task's last one: an equal one may stand in a lane or lesson it has left."""
        entry = self._entries.get(place.task_id)
        return entry is not None and entry[0] is place


class LaneFilter:
    """Whether a session may be given the tasks of a lane."""

    __slots__ = ("capabilities", "session_name", "task_types", "tier")

    def __init__(
        self, session_name: str, tier: str, capabilities: tuple[str, ...], task_types: tuple[str, ...]
    ) -> None:
        self.session_name = session_name
        self.tier = tier
        self.capabilities = frozenset(capabilities)
        self.task_types = frozenset(task_types)

    def __call__(self, key: LaneKey) -> bool:
        """Every condition of the lane must hold."""
        return (
            (not key.target_session or key.target_session == self.session_name)
            and (not key.tier or key.tier == self.tier)
            and self.capabilities.issuperset(key.capabilities)
            and (not self.task_types or key.task_type in self.task_types)
        )
