"""The verbs of usability: the only writers besides ingest and the detection worker.

`who` is a signed-in `User` or an API `Principal` (gaia_site.keys); it decides what is visible, and somebody
else's object is `NotFound`. `now` is an aware datetime, the clock of the shell where left out. Every service is
one transaction; each change of an alert takes the next `seq` of its classroom and is pushed after commit.
Errors are those of `usability.errors`.
"""

from usability.services.alerts import (
    acknowledge_alert,
    dismiss_alert,
    expire_alerts,
    helped,
    on_my_way,
    raise_alert,
    record_intervention,
    resolve_alert,
    snooze_alert,
    undo,
)
from usability.services.class_settings import (
    Wanted,
    pause_class,
    resume_class,
    save_settings,
    set_budget,
    set_profile,
    set_quiet_hours,
    set_seats,
)
from usability.services.events import acknowledge_event, record_event, resolve_event
from usability.services.looks import record_look, record_looks
from usability.services.metrics import record_metrics
from usability.services.ratings import SessionToken, issue_session_token, record_rating
from usability.snapshots import take_snapshot

__all__ = [
    "SessionToken",
    "Wanted",
    "acknowledge_alert",
    "acknowledge_event",
    "dismiss_alert",
    "expire_alerts",
    "helped",
    "issue_session_token",
    "on_my_way",
    "pause_class",
    "raise_alert",
    "record_event",
    "record_intervention",
    "record_look",
    "record_looks",
    "record_metrics",
    "record_rating",
    "resolve_alert",
    "resolve_event",
    "resume_class",
    "save_settings",
    "set_budget",
    "set_profile",
    "set_quiet_hours",
    "set_seats",
    "snooze_alert",
    "take_snapshot",
    "undo",
]
