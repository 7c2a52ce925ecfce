"""The settings page's form: what a teacher may set, checked field by field."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from usability.detection.kinds import SignalFamily
from usability.detection.registry import DETECTORS
from usability.portal import words
from usability.selectors.settings import ClassSettings
from usability.services import Wanted

# A request for help always comes through; the others here make no signal about a pupil.
NOT_OFFERED = {SignalFamily.HELP, SignalFamily.RECOVERY, SignalFamily.APP_HEALTH, SignalFamily.RATING}
OFFERED = tuple(
    detector.name
    for detector in DETECTORS
    if detector.family not in NOT_OFFERED and detector.family != SignalFamily.REFERENCE
)
DAYS = (
    (1, gettext_lazy("Monday")),
    (2, gettext_lazy("Tuesday")),
    (3, gettext_lazy("Wednesday")),
    (4, gettext_lazy("Thursday")),
    (5, gettext_lazy("Friday")),
    (6, gettext_lazy("Saturday")),
    (7, gettext_lazy("Sunday")),
)
PER_MINUTES = ((5, gettext_lazy("5 min")), (10, gettext_lazy("10 min")), (20, gettext_lazy("20 min")))
CUSTOM = "custom"
CLOCK = r"^([01]\d|2[0-3]):[0-5]\d$"


class BudgetForm(forms.Form):
    """How often signals may interrupt."""

    alerts = forms.FloatField(
        min_value=0,
        max_value=20,
        error_messages={
            "invalid": gettext_lazy("A number from 0 to 20."),
            "required": gettext_lazy("A number from 0 to 20."),
            "min_value": gettext_lazy("A number from 0 to 20."),
            "max_value": gettext_lazy("A number from 0 to 20."),
        },
    )
    per_minutes = forms.TypedChoiceField(choices=PER_MINUTES, coerce=int)
    burst = forms.IntegerField(
        min_value=0,
        max_value=20,
        error_messages={
            "invalid": gettext_lazy("A whole number from 0 to 20."),
            "required": gettext_lazy("A whole number from 0 to 20."),
            "min_value": gettext_lazy("A whole number from 0 to 20."),
            "max_value": gettext_lazy("A whole number from 0 to 20."),
        },
    )


class RulesForm(BudgetForm):
    """Budget, signals and quiet hours; `version` is the one the page was made from."""

    version = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    preset = forms.ChoiceField()
    detectors = forms.MultipleChoiceField(required=False)
    quiet = forms.BooleanField(required=False)
    quiet_from = forms.RegexField(
        CLOCK, required=False, error_messages={"invalid": gettext_lazy("A time such as 15:30.")}
    )
    quiet_until = forms.RegexField(
        CLOCK, required=False, error_messages={"invalid": gettext_lazy("A time such as 07:45.")}
    )
    days = forms.TypedMultipleChoiceField(choices=DAYS, coerce=int, required=False)

    def __init__(self, *args: Any, settings: ClassSettings, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings
        names = [*words.PRESETS, CUSTOM] if settings.preset == CUSTOM else [*words.PRESETS]
        self.fields["preset"].choices = [(name, name) for name in names]
        self.fields["detectors"].choices = [(name, words.detector(name)) for name in OFFERED]

    def clean(self) -> dict[str, Any]:
        """Quiet hours need both times and a day."""
        found = super().clean() or self.cleaned_data
        if found.get("quiet"):
            for name in ("quiet_from", "quiet_until"):
                if name not in self.errors and not found.get(name):
                    self.add_error(name, _("A time such as 15:30."))
            if not found.get("days"):
                self.add_error("days", _("At least one day."))
        return found

    def wanted(self) -> Wanted:
        """What a valid form asks for."""
        found = self.cleaned_data
        quiet = {"days": found["days"], "from": found["quiet_from"], "until": found["quiet_until"]}
        # The page has one stretch of quiet hours; more that an admin has set stay.
        others = self.settings.quiet_hours[1:]
        return Wanted(
            alerts=found["alerts"],
            per_minutes=found["per_minutes"],
            burst=found["burst"],
            preset=None if found["preset"] == CUSTOM else found["preset"],
            off=frozenset(OFFERED) - set(found["detectors"]),
            quiet_hours=((quiet, *others) if found["quiet"] else others),
        )


def initial_of(settings: ClassSettings) -> dict[str, Any]:
    """What the form shows at first."""
    first = settings.quiet_hours[0] if settings.quiet_hours else None
    return {
        "alerts": f"{settings.alerts_per_10_min:g}",
        "per_minutes": 10,
        "burst": settings.alert_burst,
        "version": settings.version,
        "preset": settings.preset,
        "detectors": [name for name in OFFERED if name not in settings.off],
        "quiet": first is not None,
        "quiet_from": first["from"] if first else "15:30",
        "quiet_until": first["until"] if first else "07:45",
        "days": list(first.get("days") or range(1, 8)) if first else [1, 2, 3, 4, 5],
    }
