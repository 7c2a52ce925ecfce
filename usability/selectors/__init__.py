"""The questions teachers, apps and operators ask; answers are the frozen data of `shapes`.

`who` is a signed-in `User` or an API `Principal`; somebody else's classroom or pupil is `NotFound`.
"""

from usability.selectors.apps import RatingsSummary, app_health, health_of_apps, ratings_summary, refusals
from usability.selectors.classrooms import classroom_metrics, snapshots, struggling
from usability.selectors.explain import student_why
from usability.selectors.live import classrooms_of, live_class
from usability.selectors.settings import BudgetPreview, budget_preview, class_settings
from usability.selectors.signals import alerts_after, cursor_of, help_request_state, live_signal
from usability.selectors.students import student_buckets, student_page
from usability.selectors.trends import Trends, exported_signals, trends

__all__ = [
    "BudgetPreview",
    "RatingsSummary",
    "Trends",
    "alerts_after",
    "app_health",
    "budget_preview",
    "class_settings",
    "classroom_metrics",
    "classrooms_of",
    "cursor_of",
    "exported_signals",
    "health_of_apps",
    "help_request_state",
    "live_class",
    "live_signal",
    "ratings_summary",
    "refusals",
    "snapshots",
    "struggling",
    "student_buckets",
    "student_page",
    "student_why",
    "trends",
]
