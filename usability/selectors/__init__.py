"""The questions teachers, apps and operators ask; answers are the frozen data of `shapes`.

`who` is a signed-in `User` or an API `Principal`; somebody else's classroom or pupil is `NotFound`.
"""

from usability.selectors.apps import RatingsSummary, app_health, ratings_summary
from usability.selectors.classrooms import Trends, classroom_metrics, snapshots, struggling, trends
from usability.selectors.live import classrooms_of, live_class
from usability.selectors.signals import alerts_after, cursor_of, help_request_state, live_signal
from usability.selectors.students import student_buckets, student_page

__all__ = [
    "RatingsSummary",
    "Trends",
    "alerts_after",
    "app_health",
    "classroom_metrics",
    "classrooms_of",
    "cursor_of",
    "help_request_state",
    "live_class",
    "live_signal",
    "ratings_summary",
    "snapshots",
    "struggling",
    "student_buckets",
    "student_page",
    "trends",
]
