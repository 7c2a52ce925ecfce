"""What things are called on the pages: families of signals, detectors, kinds of help, presets."""

from __future__ import annotations

from django.utils.translation import gettext_lazy

from usability.models import InterventionKind

HELP_KINDS = {
    InterventionKind.EXPLAINED: gettext_lazy("Explained it"),
    InterventionKind.HINTED: gettext_lazy("Gave a hint"),
    InterventionKind.ENCOURAGED: gettext_lazy("Encouraged"),
    InterventionKind.TALKED: gettext_lazy("Talked it over"),
    InterventionKind.PAIRED: gettext_lazy("Paired up"),
    InterventionKind.TECHNICAL: gettext_lazy("Device or app"),
    InterventionKind.OTHER: gettext_lazy("Something else"),
}

FAMILIES = {
    "help": gettext_lazy("Asked for help"),
    "accuracy": gettext_lazy("Wrong answers"),
    "progress": gettext_lazy("Same skill, no progress"),
    "guessing": gettext_lazy("Answering or opening hints very fast"),
    "typing": gettext_lazy("Many corrections"),
    "pace": gettext_lazy("Slower than usual"),
    "pause": gettext_lazy("Long pauses"),
    "away": gettext_lazy("App out of sight"),
    "class_stuck": gettext_lazy("Several on the same item"),
    "recovered": gettext_lazy("Back on track"),
}

DETECTORS = {
    "asked_for_help": gettext_lazy("Asked for help"),
    "away": gettext_lazy("App out of sight"),
    "correction_burst": gettext_lazy("Correcting far more than usual"),
    "error_streak": gettext_lazy("Several wrong answers in a row"),
    "hesitation": gettext_lazy("Long pause before an answer"),
    "hint_avoid": gettext_lazy("Many wrong answers, no hint opened"),
    "hint_rush": gettext_lazy("Opening hints faster than one can read"),
    "idle": gettext_lazy("Nothing typed or tapped for a while"),
    "low_recent_success": gettext_lazy("Few of the last answers right"),
    "pace_drop": gettext_lazy("Much slower than usual"),
    "rapid_guess": gettext_lazy("Answering faster than one can read"),
    "shift": gettext_lazy("A lasting change of habit"),
    "wheel_spin_risk": gettext_lazy("Likely to make no progress at a skill"),
    "wheel_spinning": gettext_lazy("Same skill, no progress"),
}

MEASURES = {
    "right_answers": gettext_lazy("right answers"),
    "working": gettext_lazy("half minutes at work"),
    "uncorrected_typing": gettext_lazy("typing without corrections"),
}

PRESETS = {
    "balanced": (
        gettext_lazy("Balanced"),
        gettext_lazy("Waits 25 s before anything shows; compares with each pupil’s own usual."),
    ),
    "later": (
        gettext_lazy("Later and surer"),
        gettext_lazy("Waits a minute. Fewer signals; slow struggles show up later."),
    ),
    "earlier": (
        gettext_lazy("Earlier"),
        gettext_lazy("Waits 10 s. More signals; more of them pass by themselves."),
    ),
}


def family(name: str) -> str:
    """A family of signals; one that is not known by a word is its own name, with blanks."""
    return str(FAMILIES.get(name, name.replace("_", " ").capitalize()))


def detector(name: str) -> str:
    """A detector, in the same way."""
    return str(DETECTORS.get(name, name.replace("_", " ").capitalize()))


def help_kind(name: str) -> str:
    """A kind of help, in the same way."""
    return str(HELP_KINDS.get(name, name.replace("_", " ").replace("-", " ").capitalize()))  # type: ignore[call-overload]


def measure(name: str) -> str:
    """What an effect is measured by, in the same way."""
    return str(MEASURES.get(name, name.replace("_", " ")))
