"""What pupils say about an app, and the tokens with which their browsers may say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from gaia_site import keys
from gaia_site.models import Scope
from usability.detection.kinds import MetricType
from usability.errors import Invalid, NotPermitted
from usability.ingest import direct
from usability.ingest.decode import Rules, judge_values
from usability.models import SatisfactionRating, Student
from usability.services.routing import classroom_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence

    from usability.ingest.copy import Row

FEEDBACK_LIMIT = 1000


def record_rating(
    *,
    student_id: str,
    app_name: str,
    session_id: str,
    rating: int,
    feedback_text: str = "",
    now: dt.datetime | None = None,
    committed: Callable[[Sequence[Row], int], None] | None = None,
) -> SatisfactionRating:
    """The pupil's rating of this sitting; a second one of the same sitting replaces the first.

    Detection hears of each rating once: a metric is stored with a new or another one, in the same transaction, and
    `committed` is told of it after the commit (as `ingest.direct.store` does). A pupil nobody knew is kept,
    unassigned. Raises `Invalid` for a rating outside 1..5 or too long a text.
    """
    if isinstance(rating, bool) or not isinstance(rating, int) or not 1 <= rating <= 5:
        raise Invalid("rating", f"a whole number from 1 to 5, not {rating!r}")
    if len(feedback_text) > FEEDBACK_LIMIT or "\0" in feedback_text:
        raise Invalid("feedback_text", f"a text of at most {FEEDBACK_LIMIT} characters")
    now = now or timezone.now()
    place = {"student_id": student_id, "app_name": app_name, "session_id": session_id}
    with transaction.atomic():
        Student.objects.ensure([student_id], app_name=app_name)
        kept, is_new = SatisfactionRating.objects.select_for_update().get_or_create(
            **place,
            defaults={
                "rating": rating,
                "feedback_text": feedback_text,
                "classroom": classroom_of(student_id, app_name),
                "created_at": now,
            },
        )
        is_changed = is_new or kept.rating != rating
        if not is_new:
            kept.rating, kept.feedback_text = rating, feedback_text
            kept.save(update_fields=["rating", "feedback_text", "updated_at"])
        if is_changed:
            _tell_detection(kept, now, committed)
    return kept


def _tell_detection(
    kept: SatisfactionRating, now: dt.datetime, committed: Callable[[Sequence[Row], int], None] | None
) -> None:
    """Store the rating as a metric. It names no sitting: one given on leaving must not look like a new beginning."""
    if not settings.GAIA.usability_metrics_enabled:
        return
    metric = {
        "student_id": kept.student_id,
        "app_name": kept.app_name,
        "metric_type": str(MetricType.RATING),
        "metric_value": float(kept.rating),
    }
    rules = Rules(own_types=lambda _app_name: (MetricType.RATING,))
    direct.store(judge_values([metric], received_at=now, rules=rules), received_at=now, committed=committed)


@dataclass(frozen=True, slots=True)
class SessionToken:
    """A signed token a pupil's browser may hold, and when it ends."""

    token: str
    expires_at: dt.datetime


def issue_session_token(
    *, who: Any, student_id: str, app_name: str, ttl_s: int = 3600, now: dt.datetime | None = None
) -> SessionToken:
    """A token for one pupil in one app, for an app's own server to hand to the pupil's browser.

    Raises `NotPermitted` where the key may not write metrics or belongs to another app, `Invalid` for a
    lifetime outside 1 s to a day.
    """
    if not isinstance(who, keys.Principal) or who.kind != "key" or not who.has_any(Scope.METRICS_WRITE):
        raise NotPermitted("A session token is made with an API key of the scope metrics:write.")
    if who.app_name and who.app_name != app_name:
        raise NotPermitted("The key belongs to another app.")
    if not 1 <= ttl_s <= keys.TOKEN_TTL_LIMIT_S:
        raise Invalid("ttl_s", f"from 1 to {keys.TOKEN_TTL_LIMIT_S}, not {ttl_s}")
    token, expires_at = keys.issue_session_token(
        who, student_id=student_id, app_name=app_name, ttl_s=ttl_s, now=now
    )
    return SessionToken(token, expires_at)
