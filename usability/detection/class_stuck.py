"""class_stuck: several pupils struggle with the same item or skill, so the class gets one card.

Rule: at least `max(minimum, share x active pupils)` (4, 25 %) pupils have a struggle signal whose latest
evidence is at most `window_s` (300 s) old, on the same item, or else on the same skill. The card closes when
fewer than half of that number are left.
Source: the report protocol of MATHia's live view asks first whether the whole class needs re-teaching.
"""

from collections.abc import Iterable
from hashlib import blake2b
from math import ceil
from typing import Literal
from uuid import UUID

import msgspec

from usability.detection.policy import ClassStuckPolicy
from usability.detection.signals import Reason, Signal
from usability.detection.words import say

SubjectKind = Literal["item", "skill"]


class Topic(msgspec.Struct, frozen=True, order=True):
    """What pupils are stuck on."""

    kind: SubjectKind
    name: str


class ClassCard(msgspec.Struct, frozen=True):
    """A card about the class. `students` are those with a signal on the topic, sorted."""

    id: str
    classroom_id: str
    topic: Topic
    opened_ms: int
    students: tuple[str, ...]
    active_pupils: int
    reason: Reason


def needed(active_pupils: int, policy: ClassStuckPolicy) -> int:
    """How many pupils make a card."""
    return max(policy.minimum, ceil(policy.share * active_pupils))


def stuck_on(
    topic: Topic, signals: Iterable[tuple[str, Signal]], now_ms: int, policy: ClassStuckPolicy
) -> tuple[str, ...]:
    """The pupils with a recent struggle signal on the topic; `signals` are (student id, raised signal)."""
    from_ms = now_ms - policy.window_s * 1000
    return tuple(
        sorted(
            {
                student_id
                for student_id, signal in signals
                if signal.at_ms >= from_ms and getattr(signal, topic.kind) == topic.name
            }
        )
    )


def card(
    classroom_id: str, topic: Topic, *, opened_ms: int, students: tuple[str, ...], active_pupils: int
) -> ClassCard:
    """The card, with an id made from classroom, topic and opening."""
    parts = msgspec.msgpack.encode((classroom_id, topic.kind, topic.name, opened_ms))
    return ClassCard(
        id=str(UUID(bytes=blake2b(parts, digest_size=16).digest(), version=5)),
        classroom_id=classroom_id,
        topic=topic,
        opened_ms=opened_ms,
        students=students,
        active_pupils=active_pupils,
        reason=_reason(topic, len(students), active_pupils),
    )


def with_students(card: ClassCard, students: tuple[str, ...], active_pupils: int) -> ClassCard:
    """The card with the pupils it has now."""
    return msgspec.structs.replace(
        card,
        students=students,
        active_pupils=active_pupils,
        reason=_reason(card.topic, len(students), active_pupils),
    )


def _reason(topic: Topic, count: int, active_pupils: int) -> Reason:
    where = "on item {name}" if topic.kind == "item" else "at {name}"
    return say(
        f"class_stuck_{topic.kind}",
        "{count} of {active} pupils have a struggle signal " + where,
        count=count,
        active=active_pupils,
        name=topic.name,
    )
