"""What pupils say about an app, and the tokens with which their browsers may say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from gaia_site import keys
from gaia_site.models import Scope
from usability.errors import Invalid, NotPermitted
from usability.models import SatisfactionRating, Student
from usability.services.routing import classroom_of

if TYPE_CHECKING:
    import datetime as dt

FEEDBACK_LIMIT = 1000


def record_rating(
    *,
    student_id: str,
    app_name: str,
    session_id: str,
    rating: int,
    feedback_text: str = "",
    now: dt.datetime | None = None,
) -> SatisfactionRating:
    """The pupil's rating of this sitting; a second one of the same sitting replaces the first.

    A pupil nobody knew is kept, unassigned. Raises `Invalid` for a rating outside 1..5 or too long a text.
    """
    if isinstance(rating, bool) or not isinstance(rating, int) or not 1 <= rating <= 5:
        raise Invalid("rating", f"a whole number from 1 to 5, not {rating!r}")
    if len(feedback_text) > FEEDBACK_LIMIT or "\0" in feedback_text:
        raise Invalid("feedback_text", f"a text of at most {FEEDBACK_LIMIT} characters")
    now = now or timezone.now()
    with transaction.atomic():
        Student.objects.ensure([student_id], app_name=app_name)
        kept, _ = SatisfactionRating.objects.update_or_create(
            student_id=student_id,
            app_name=app_name,
            session_id=session_id,
            defaults={"rating": rating, "feedback_text": feedback_text},
            create_defaults={
                "rating": rating,
                "feedback_text": feedback_text,
                "classroom": classroom_of(student_id, app_name),
                "created_at": now,
            },
        )
    return kept


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
