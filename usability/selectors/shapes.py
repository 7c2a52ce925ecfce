"""What the selectors answer: frozen data, shared by the page, the API and the socket.

Times are aware datetimes in UTC, durations are seconds, rates are shares of 1 and None where nothing was
counted: unknown is not zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Pupil:
    """One pupil as a teacher of the class may see it."""

    student_id: str
    name: str
    short_name: str
    seat: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing on the evidence strip: `kind` is right, wrong, hint, pause or corrections.

    `at_s` is seconds before the end of the strip; `size` is seconds for a pause, a share for corrections.
    """

    kind: str
    at_s: float
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class Strip:
    """The last ten minutes of one pupil in one app, oldest mark first."""

    ends_at: datetime
    length_s: int
    marks: tuple[Mark, ...]
    usual_low: float | None = None
    usual_high: float | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """One card of the live class. `kind` is help, class, or student; `state` is the alert's.

    `since` is the event time at which it began, `seq` the alert's number in the classroom (the cursor after
    this card), `interrupts` whether the budget let it interrupt. `helpers` are the names of who is on the way.
    """

    alert_id: UUID
    seq: int
    kind: str
    state: str
    severity: str
    alert_severity: str
    family: str
    alert_type: str
    app_name: str
    pupil: Pupil | None
    reason: str
    evidence: str
    details: dict[str, Any]
    since: datetime
    updated_at: datetime
    interrupts: bool
    snoozed_until: datetime | None = None
    helpers: tuple[str, ...] = ()
    helping_since: datetime | None = None
    undo_until: datetime | None = None
    closed_at: datetime | None = None
    event_id: UUID | None = None
    strip: Strip | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many pupils are in which condition now; a pupil is counted in the gravest that applies."""

    needs_now: int
    asked_for_help: int
    rising: int
    being_helped: int
    working: int
    away: int
    silent: int


@dataclass(frozen=True, slots=True)
class Seat:
    """One place in the room. `state` is needs, warn, help, helping, away, working, silent or empty."""

    place: str
    pupil: Pupil | None
    state: str
    since: datetime | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Working:
    """A pupil without a signal: when data came last, and when somebody last helped (None: never noted)."""

    pupil: Pupil
    last_seen: datetime | None
    last_helped: datetime | None


@dataclass(frozen=True, slots=True)
class Freshness:
    """`state` is live, late or none. `last_metric_at` is receipt time; `delay_s` receipt to alert, p95 today."""

    state: str
    last_metric_at: datetime | None
    delay_s: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Until when interruptions rest and why: paused or quiet_hours."""

    until: datetime
    why: str


@dataclass(frozen=True, slots=True)
class LiveClass:
    """The whole picture of one class at `at`; `cursor` is the last alert seq in it."""

    classroom_id: UUID
    name: str
    at: datetime
    cursor: int
    signals: tuple[Signal, ...]
    snoozed: tuple[Signal, ...]
    tally: Tally
    seats: tuple[Seat, ...]
    working: tuple[Working, ...]
    freshness: Freshness
    pause: Pause | None


@dataclass(frozen=True, slots=True)
class ClassCard:
    """One class on "my classes". `has_data` is False where no app has sent anything today."""

    classroom_id: UUID
    name: str
    subject: str
    room: str
    pupils: int
    needs_now: int
    asked_for_help: int
    active: int
    has_data: bool
    last_metric_at: datetime | None
    pause: Pause | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Counts of one pupil (or class) in one stretch of time; rates are None without opportunities."""

    at: datetime
    keypresses: float
    backspaces: float
    errors: float
    attempts: int
    right: int
    hints: int
    hesitation_s: float
    late: int
    correction_share: float | None
    error_rate: float | None


@dataclass(frozen=True, slots=True)
class Episode:
    """One frustration event as a span on the timeline."""

    event_id: UUID
    app_name: str
    event_type: str
    severity: str
    reason: str
    started_at: datetime
    ended_at: datetime | None
    acknowledged_at: datetime | None
    resolved_at: datetime | None
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Effect:
    """One measure before and after help, with 95 % intervals and counts, beside moments without help.

    `verdict` is better, worse, unclear or insufficient_data; `compared` is more_than_without_help,
    like_without_help, less_than_without_help or insufficient_data. `measure` is right_answers, working or
    uncorrected_typing; more is better in each. What came after is not proof of what helped.
    """

    verdict: str
    before: float | None
    before_n: int
    before_low: float | None
    before_high: float | None
    after: float | None
    after_n: int
    after_low: float | None
    after_high: float | None
    window_s: int
    measure: str = "right_answers"
    compared: str = "insufficient_data"
    unhelped_before: float | None = None
    unhelped_after: float | None = None
    unhelped_episodes: int = 0
    unhelped_among: str = ""


@dataclass(frozen=True, slots=True)
class Help:
    """One intervention; `effect` is None until enough time has passed."""

    intervention_id: UUID
    alert_id: UUID | None
    kind: str
    note: str
    at: datetime
    by: str
    effect: Effect | None


@dataclass(frozen=True, slots=True)
class Rating:
    """One satisfaction rating."""

    app_name: str
    rating: int
    session_id: str
    feedback_text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class StudentPage:
    """Everything the page of one pupil shows, for one stretch of time."""

    pupil: Pupil
    classroom_ids: tuple[UUID, ...]
    since: datetime
    until: datetime
    bucket_s: int
    signals: tuple[Signal, ...]
    buckets: tuple[Bucket, ...]
    episodes: tuple[Episode, ...]
    interventions: tuple[Help, ...]
    ratings: tuple[Rating, ...]
    last_seen: datetime | None
    late_count: int


@dataclass(frozen=True, slots=True)
class ClassroomMetrics:
    """Counts and rates of the enrolled pupils of one class over a window; rates are None without a base."""

    classroom_id: UUID
    app_name: str | None
    since: datetime
    until: datetime
    total_students: int
    active_students: int
    struggling_student_count: int
    counts: dict[str, float] = field(default_factory=dict)
    error_rate: float | None = None
    correction_share: float | None = None
    completion_rate: float | None = None
    average_hesitation_s: float | None = None
    average_satisfaction_rating: float | None = None


@dataclass(frozen=True, slots=True)
class Struggling:
    """A pupil with an open signal, worst and longest first."""

    pupil: Pupil
    app_name: str
    severity: str
    reasons: tuple[str, ...]
    since: datetime
    suggested_help: str


@dataclass(frozen=True, slots=True)
class AppHealth:
    """What the app itself does wrong: rejections by reason, clicks that did nothing, late and old clients."""

    app_name: str
    since: datetime
    until: datetime
    metrics: int
    rejected: dict[str, int]
    dead_clicks: tuple[tuple[str, int], ...]
    rage_clicks: tuple[tuple[str, int], ...]
    error_clicks: tuple[tuple[str, int], ...]
    late_share: float | None
    sdk_versions: dict[str, int]


@dataclass(frozen=True, slots=True)
class AlertChange:
    """One alert as it is now; `cursor` is its last number, `first_seq` the one at which it was raised.

    `teacher_id` is set where the alert is for that one teacher.
    """

    cursor: int
    first_seq: int
    signal: Signal
    teacher_id: int | None = None

    def type_for(self, cursor: int) -> str:
        """How it reaches a reader who knows everything up to `cursor`: as a new alert or as a changed one."""
        return "alert" if self.first_seq > cursor else "alert.updated"
