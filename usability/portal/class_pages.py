"""The pages about a class besides the live one: trends, settings, its signals as a table."""

from __future__ import annotations

import csv
import re
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from usability import access, selectors, services
from usability.errors import Conflict, Invalid
from usability.models import TeacherDashboardAlert
from usability.portal import trend_charts, words
from usability.portal.doors import teacher_page
from usability.portal.forms import CUSTOM, BudgetForm, RulesForm, initial_of
from usability.selectors.settings import ClassSettings

PAUSE_MINUTES = 10
PAUSE_MINUTES_MAX = 120
COLUMNS_MOST = 12
ROWS_MOST = 12
SEAT_FIELD = "seat:"


# ---------------------------------------------------------------- trends


@require_GET
@teacher_page
def trends(request: HttpRequest, classroom_id: UUID) -> HttpResponse:
    """What the days or weeks of a class show; htmx asks for the part that changes with the period."""
    now = timezone.now()
    period = trend_charts.period_of(request.GET.get("period", ""))
    found = selectors.trends(
        classroom_id, who=request.user, since=now - period.length, until=now, step=period.step
    )
    context = {
        "classroom": access.get_classroom(request.user, classroom_id),
        "found": found,
        "period": period,
        "periods": trend_charts.PERIODS,
        "shares": trend_charts.share_chart(found),
        "help_charts": trend_charts.help_charts(found),
        "families": trend_charts.family_bars(found.families),
        "ratings": [(one, trend_charts.rating_bars(one)) for one in found.ratings],
        "section": "trends",
    }
    return render(request, "portal/_trends.html" if request.htmx else "portal/trends.html", context)


HEAD = (
    "began",
    "ended",
    "pupil_id",
    "pupil",
    "seat",
    "app",
    "signal",
    "severity",
    "reason",
    "state",
    "interrupted",
    "help",
    "helped_at",
    "parameters",
)


@require_GET
@teacher_page
def signals_csv(request: HttpRequest, classroom_id: UUID) -> HttpResponse:
    """The class's signals of the period as CSV; whose they are is recorded as looked at."""
    now = timezone.now()
    period = trend_charts.period_of(request.GET.get("period", ""))
    classroom = access.get_classroom(request.user, classroom_id)
    found = list(
        selectors.exported_signals(classroom_id, who=request.user, since=now - period.length, until=now)
    )
    pupils = sorted({alert.student_id for alert, _name, _seat in found if alert.student_id})
    services.record_looks(request.user, student_ids=pupils, action="export_signals")
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    name = re.sub(r"[^A-Za-z0-9]+", "-", classroom.name).strip("-") or "class"
    answer["Content-Disposition"] = f'attachment; filename="signals-{name}-{now:%Y-%m-%d}.csv"'
    answer.write("\ufeff")  # spreadsheets take it for UTF-8
    rows = csv.writer(answer)
    rows.writerow(HEAD)
    for alert, name_of, seat in found:
        rows.writerow([_harmless(value) for value in _line(alert, name_of, seat)])
    return answer


def _line(alert: TeacherDashboardAlert, name: str, seat: str) -> tuple[str, ...]:
    ended = alert.event.ended_at if alert.event else alert.closed_at
    helped = list(alert.interventions.all())
    return (
        alert.detected_at.isoformat(timespec="seconds"),
        ended.isoformat(timespec="seconds") if ended else "",
        alert.student_id or "",
        name,
        seat,
        alert.app_name,
        alert.alert_type,
        str(alert.details.get("severity") or alert.severity),
        str(alert.details.get("reason", "")),
        alert.state,
        "yes" if alert.is_interrupting else "no",
        ", ".join(one.kind for one in helped),
        helped[0].at.isoformat(timespec="seconds") if helped else "",
        alert.event.params_version if alert.event else "",
    )


def _harmless(value: str) -> str:
    """A cell that a spreadsheet does not take for a formula."""
    return f"'{value}" if value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


# ---------------------------------------------------------------- settings


@require_http_methods(["GET", "POST"])
@teacher_page
def settings(request: HttpRequest, classroom_id: UUID) -> HttpResponse:
    """What the teacher sets: budget, signals, quiet hours in one form; seats and the pause each in their own."""
    found = selectors.class_settings(classroom_id, who=request.user)
    if request.method == "GET":
        return _page(request, found)
    if request.POST.get("part") == "seats":
        return _save_seats(request, found)
    if request.POST.get("part") == "pause":
        return _pause(request, found)
    return _save_rules(request, found)


def _page(request: HttpRequest, found: ClassSettings, *, status: int = 200, **more: Any) -> HttpResponse:
    now = timezone.now()
    form = more.pop("form", None) or RulesForm(initial=initial_of(found), settings=found)
    context = {
        "classroom": found.classroom,
        "settings": found,
        "form": form,
        "presets": [
            (name, *words.PRESETS[name])
            if name in words.PRESETS
            else (name, _("As set by an admin"), _("Parameters no choice above has; they stay as they are."))
            for name, _label in form.fields["preset"].choices
        ],
        "preview": _preview(request, found.classroom.pk, found.alerts_per_10_min, found.alert_burst),
        "history": [(version, [_change_words(one) for one in version.changes]) for version in found.history],
        "seats": more.pop("seats", {student_id: seat for student_id, _name, seat in found.seats}),
        "columns": _columns(found),
        "room_rows": _room_rows(found),
        "is_paused": bool(found.classroom.paused_until and found.classroom.paused_until > now),
        "saved": request.GET.get("saved", ""),
        "now": now,
        "section": "settings",
        **more,
    }
    return render(request, "portal/settings.html", context, status=status)


def _save_rules(request: HttpRequest, found: ClassSettings) -> HttpResponse:
    form = RulesForm(request.POST, settings=found)
    if not form.is_valid():
        return _page(request, found, status=422, form=form)
    known = form.cleaned_data["version"]
    try:
        services.save_settings(
            found.classroom.pk,
            who=request.user,
            wanted=form.wanted(),
            known_version=known,
            offered=[name for name, _label in form.fields["detectors"].choices],
        )
    except Conflict as refusal:
        return _page(request, found, status=409, conflict=refusal.detail)
    except Invalid as refusal:
        form.add_error(None, refusal.detail)
        return _page(request, found, status=422, form=form)
    return redirect(_saved(found, "rules"))


def _save_seats(request: HttpRequest, found: ClassSettings) -> HttpResponse:
    known = {student_id for student_id, _name, _seat in found.seats}
    given = {
        key.removeprefix(SEAT_FIELD): value.strip().upper()[:4]
        for key, value in request.POST.items()
        if key.startswith(SEAT_FIELD) and key.removeprefix(SEAT_FIELD) in known
    }
    try:
        services.set_seats(found.classroom.pk, who=request.user, seats=given)
    except Invalid as refusal:
        error = refusal.errors[0]
        return _page(
            request,
            found,
            status=422,
            seats={student_id: seat for student_id, _name, seat in found.seats} | given,
            seat_error=(str(error.loc[-1]), _seat_words(error.msg, found)),
        )
    return redirect(_saved(found, "seats"))


def _seat_words(message: str, found: ClassSettings) -> str:
    """The refusal with the name of who sits there."""
    for student_id, name, _seat in found.seats:
        if message.endswith(f" by {student_id}"):
            return message.removesuffix(student_id) + name
    return message


def _pause(request: HttpRequest, found: ClassSettings) -> HttpResponse:
    given = request.POST.get("minutes", "")
    minutes = min(int(given), PAUSE_MINUTES_MAX) if given.isascii() and given.isdigit() else PAUSE_MINUTES
    if minutes:
        services.pause_class(found.classroom.pk, who=request.user, minutes=minutes)
    else:
        services.resume_class(found.classroom.pk, who=request.user)
    return redirect(_saved(found, "pause"))


def _saved(found: ClassSettings, part: str) -> str:
    return f"{reverse('portal:settings', args=[found.classroom.pk])}?saved={part}"


@require_GET
@teacher_page
def budget_preview(request: HttpRequest, classroom_id: UUID) -> HttpResponse:
    """What a budget would have meant in the last two weeks, while it is being typed."""
    access.get_classroom(request.user, classroom_id)
    form = BudgetForm(request.GET)
    preview = None
    if form.is_valid():
        wanted = form.cleaned_data
        per_10 = wanted["alerts"] * 10 / wanted["per_minutes"]
        preview = _preview(request, classroom_id, per_10, wanted["burst"])
    return render(request, "portal/_budget_preview.html", {"preview": preview})


def _preview(request: HttpRequest, classroom_id: UUID, per_10_min: float, burst: int) -> Any:
    return selectors.budget_preview(
        classroom_id, who=request.user, alerts_per_10_min=per_10_min, burst=burst, now=timezone.now()
    )


def _change_words(change: tuple[str, str, str]) -> str:
    """One change of the settings, as it is told below the form."""
    what, before, after = change
    if what == "budget":
        return _("Budget: %(after)s (was %(before)s)") % {
            "after": _budget_words(after),
            "before": _budget_words(before),
        }
    if what == "quiet_hours":
        return _("Quiet hours: %(after)s") % {"after": after or _("none")}
    if what == "preset":
        return _("Signals: %(after)s") % {"after": _preset_words(after)}
    template = _("Off: %(name)s") if what == "off" else _("On: %(name)s")
    return template % {"name": words.detector(before)}


def _budget_words(stored: str) -> str:
    alerts, _slash, burst = stored.partition("/")
    return _("%(alerts)s in 10 min, %(burst)s at once") % {"alerts": alerts, "burst": burst}


def _preset_words(name: str) -> str:
    return (
        str(words.PRESETS[name][0]) if name != CUSTOM and name in words.PRESETS else _("as set by an admin")
    )


# ---------------------------------------------------------------- the seat map


def _columns(found: ClassSettings) -> int:
    taken = [
        ord(seat[0]) - ord("A") + 1
        for _id, _name, seat in found.seats
        if len(seat) in (2, 3) and seat[1:].isdigit()
    ]
    return min(COLUMNS_MOST, max([6, *taken]))


def _room_rows(found: ClassSettings) -> list[list[str]]:
    """The places of the room, row by row; one free row behind the last that is taken."""
    taken = [int(seat[1:]) for _id, _name, seat in found.seats if seat[1:].isdigit()]
    rows = min(ROWS_MOST, max([4, *(row + 1 for row in taken)]))
    return [
        [f"{chr(ord('A') + column)}{row}" for column in range(_columns(found))] for row in range(1, rows + 1)
    ]
