"""dead_click: a click that nothing answers.

Rule: the SDK counts a click after which nothing changes for 2.5 s; inputs and links are left out. Each report is told once per element
as app health. `repeated` (3) within `window_s` (120 s) are also a weak signal about the pupil's work; a completion
or `forget_s` (60 s) without another clears it.
Source: the dead click rule of PostHog (2.5 s without a change of the page).
"""

from usability.detection.click_detector import ClickDetector
from usability.detection.kinds import MetricType


class DeadClick(ClickDetector):
    name = "dead_click"
    version = 1
    listens = frozenset({MetricType.DEAD_CLICK, MetricType.COMPLETION})
    what = "Clicked what does not answer"


DETECTOR = DeadClick()
