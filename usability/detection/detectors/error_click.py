"""error_click: a click that fails.

Rule: the SDK counts a click followed by a script error within 100 ms. Each report is told once per element
as app health. `repeated` (3) within `window_s` (120 s) are also a weak signal about the pupil's work; a completion
or `forget_s` (60 s) without another clears it.
Source: the error click rule of Datadog RUM (an error at most 100 ms after the action).
"""

from usability.detection.click_detector import ClickDetector
from usability.detection.kinds import MetricType


class ErrorClick(ClickDetector):
    name = "error_click"
    version = 1
    listens = frozenset({MetricType.ERROR_CLICK, MetricType.COMPLETION})
    what = "Clicked and the app reported an error"


DETECTOR = ErrorClick()
