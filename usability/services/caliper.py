"""Caliper envelopes: their events become metrics and ratings; nothing else of them is kept."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from django.db import transaction

from usability.ingest import direct, health
from usability.ingest.adapters import caliper as adapter
from usability.ingest.adapters.caliper import Rating
from usability.ingest.adapters.xapi import LeftOut
from usability.ingest.decode import Rejection, Rules, judge_values
from usability.services.metrics import own_types
from usability.services.ratings import record_rating

if TYPE_CHECKING:
    import datetime as dt

    from usability.ingest.copy import Row


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an envelope: how many events were taken, why the others were not."""

    accepted: int
    rejected: list[Rejection] = field(default_factory=list)
    duplicate: bool = False


def record_envelope(
    value: Any,
    *,
    app_name: str,
    owner: str,
    received_at: dt.datetime,
    committed: Callable[[Sequence[Row], int], None] | None = None,
) -> Recorded:
    """Take an envelope's events in, all in one transaction; the same events again are acknowledged and left.

    `owner` tells whose events these are, for the record of repetitions. Raises values.Wrong for what is no envelope.
    """
    envelope = adapter.envelope(value)
    skew = received_at - envelope.sent_at
    metrics, ratings, rejected = _sorted_out(envelope.data, app_name, skew)
    decoded = judge_values(
        [made for _, made in metrics], received_at=received_at, rules=Rules(app_name, "", own_types)
    )
    wrong = [_of_event(one, metrics[one.index][0]) for one in decoded.rejected]
    name = hashlib.sha256(msgspec.json.encode(envelope.data)).hexdigest()
    with transaction.atomic():
        is_known = direct.store(
            decoded, received_at=received_at, batch_key=(f"c:{owner}", name), committed=committed
        )
        if not is_known:
            for rating in ratings:
                _keep_rating(rating, received_at, committed)
    if not is_known:
        left_out = Counter(one.reason for one in rejected)
        health.count(decoded, left_out, app_name=app_name, received_at=received_at)
    everything = sorted([*rejected, *wrong], key=lambda one: one.index)
    return Recorded(len(decoded.metrics) + len(ratings), everything, is_known)


def _sorted_out(
    data: list[Any], app_name: str, skew: dt.timedelta
) -> tuple[list[tuple[int, dict[str, Any]]], list[Rating], list[Rejection]]:
    """Metrics with the index of their event, ratings, and what is neither."""
    metrics, ratings, rejected = [], [], []
    for index, event in enumerate(data):
        made = adapter.meaning_of(event, app_name=app_name, skew=skew)
        match made:
            case LeftOut():
                rejected.append(Rejection(index, ("body", "data", index), made.msg, made.reason))
            case Rating():
                ratings.append(made)
            case _:
                metrics.append((index, made))
    return metrics, ratings, rejected


def _of_event(rejection: Rejection, index: int) -> Rejection:
    """The refusal of a metric, at the event it was made from."""
    return Rejection(
        index, ("body", "data", index), f"{rejection.loc[-1]}: {rejection.msg}", rejection.reason
    )


def _keep_rating(
    rating: Rating, now: dt.datetime, committed: Callable[[Sequence[Row], int], None] | None
) -> None:
    record_rating(
        student_id=rating.student_id,
        app_name=rating.app_name,
        session_id=rating.session_id,
        rating=rating.rating,
        now=now,
        committed=committed,
    )
