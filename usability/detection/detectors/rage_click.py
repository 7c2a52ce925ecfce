"""rage_click: quick clicks on one place.

Rule: the SDK counts three clicks within a second, at most 30 px apart, without selection, scrolling or a stepper. Each report is told once per element
as app health. `repeated` (3) within `window_s` (120 s) are also a weak signal about the pupil's work; a completion
or `forget_s` (60 s) without another clears it.
Source: the click rules of PostHog (3 clicks, 1 s, 30 px) and Datadog RUM (no selection, no scroll).
"""

from usability.detection.click_detector import ClickDetector
from usability.detection.kinds import MetricType


class RageClick(ClickDetector):
    name = "rage_click"
    version = 1
    listens = frozenset({MetricType.RAGE_CLICK, MetricType.COMPLETION})
    what = "Clicked one place quickly"


DETECTOR = RageClick()
