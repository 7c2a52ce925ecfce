"""The teacher portal: each view asks a selector or calls a service and renders; no rule lives here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from string import ascii_uppercase
from typing import Any
from uuid import UUID

from django.contrib.auth.views import LoginView, LogoutView
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from usability import access, selectors, services
from usability.errors import UsabilityError
from usability.models import InterventionKind
from usability.portal import timeline, why
from usability.portal.context import THEME_COOKIE, THEMES
from usability.portal.doors import teacher_page
from usability.portal.words import HELP_KINDS
from usability.selectors.shapes import LiveClass, Signal

SESSION_AGE_S = 8 * 3600
THEME_AGE = timedelta(days=365)
SNOOZE_MINUTES = 10
PAUSE_MINUTES_MAX = 120


class SignIn(LoginView):
    """The sign-in page; a wrong password says so without saying which part was wrong."""

    template_name = "portal/sign_in.html"
    redirect_authenticated_user = True

    def form_valid(self, form: Any) -> HttpResponse:
        """Sign in for eight hours, a school day."""
        answer = super().form_valid(form)
        self.request.session.set_expiry(SESSION_AGE_S)
        return answer


class SignOut(LogoutView):
    """Ends the login and goes back to the sign-in page."""

    next_page = "portal:sign-in"


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Remember light, dark or the device's own on this device."""
    chosen = request.POST.get("theme", "auto")
    back = request.POST.get("next", "/")
    safe = url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure())
    answer = HttpResponseRedirect(back if safe else "/")
    answer.set_cookie(
        THEME_COOKIE,
        chosen if chosen in THEMES else "auto",
        max_age=THEME_AGE,
        samesite="Lax",
        secure=request.is_secure(),
        httponly=True,
    )
    return answer


@require_GET
@teacher_page
def classes(request: HttpRequest) -> HttpResponse:
    """My classes, those with somebody in need first."""
    now = timezone.now()
    cards = sorted(
        selectors.classrooms_of(request.user, now=now),
        key=lambda card: (-card.needs_now, not card.active, card.name),
    )
    return render(request, "portal/classes.html", {"cards": cards, "now": now, "section": "classes"})


@require_GET
@teacher_page
def live(request: HttpRequest, classroom_id: UUID) -> HttpResponse:
    """The live class: a whole page with state and cursor in one picture."""
    return render(request, "portal/live.html", _live_context(request, classroom_id))


@require_GET
@teacher_page
def live_fragment(request: HttpRequest, classroom_id: UUID) -> HttpResponse:
    """The part of the live page that changes; the page's script asks for it after a hint."""
    return render(request, "portal/_live.html", _live_context(request, classroom_id))


def _live_context(request: HttpRequest, classroom_id: UUID) -> dict[str, Any]:
    now = timezone.now()
    picture = selectors.live_class(classroom_id, who=request.user, now=now)
    return {
        "classroom": access.get_classroom(request.user, classroom_id),
        "live": picture,
        "now": now,
        "seat_columns": _columns(picture),
        "pupil_count": sum(1 for seat in picture.seats if seat.pupil),
        "announcement": _announcement(picture, now),
        "intervention_kinds": HELP_KINDS.items(),
        "section": "live",
    }


def _columns(picture: LiveClass) -> int:
    """How many seats stand side by side."""
    return sum(1 for seat in picture.seats if seat.place.lstrip(ascii_uppercase) == "1")


def _announcement(picture: LiveClass, now: datetime) -> str:
    """One sentence for a screen reader: how many signals, and the most urgent."""
    if not picture.signals:
        return _("No signals.")
    first = picture.signals[0]
    who = f"{first.pupil.short_name}, seat {first.pupil.seat}" if first.pupil else first.reason
    minutes = max(0, int((now - first.since).total_seconds() // 60))
    return _("%(count)d signals. Most urgent: %(who)s, for %(minutes)d minutes.") % {
        "count": len(picture.signals),
        "who": who,
        "minutes": minutes,
    }


@require_POST
@teacher_page
def pause(request: HttpRequest, classroom_id: UUID) -> HttpResponse:
    """Let alerts rest for some minutes; 0 resumes."""
    given = request.POST.get("minutes", "")
    minutes = min(int(given), PAUSE_MINUTES_MAX) if given.isascii() and given.isdigit() else 0
    if minutes:
        services.pause_class(classroom_id, who=request.user, minutes=minutes)
    else:
        services.resume_class(classroom_id, who=request.user)
    return redirect("portal:live", classroom_id)


def _on_my_way(alert_id: UUID, request: HttpRequest) -> str:
    services.on_my_way(alert_id, who=request.user)
    return _("You are on your way to %(name)s.")


def _helped(alert_id: UUID, request: HttpRequest) -> str:
    kind = request.POST.get("kind", InterventionKind.OTHER)
    services.helped(alert_id, who=request.user, category=kind)
    return _("Noted: you helped %(name)s.")


def _dismiss(alert_id: UUID, request: HttpRequest) -> str:
    services.dismiss_alert(alert_id, who=request.user)
    return _("Noted as not a problem: %(name)s.")


def _snooze(alert_id: UUID, request: HttpRequest) -> str:
    services.snooze_alert(alert_id, who=request.user, minutes=SNOOZE_MINUTES)
    return _("%(name)s is snoozed for 10 min.")


def _undo(alert_id: UUID, request: HttpRequest) -> str:
    services.undo(alert_id, who=request.user)
    return _("Undone: %(name)s.")


VERBS: dict[str, Callable[[UUID, HttpRequest], str]] = {
    "on-my-way": _on_my_way,
    "helped": _helped,
    "dismiss": _dismiss,
    "snooze": _snooze,
    "undo": _undo,
}


@require_POST
@teacher_page
def act(request: HttpRequest, classroom_id: UUID, alert_id: UUID, verb: str) -> HttpResponse:
    """What a teacher does about one alert; the answer is a toast with ten seconds to undo."""
    if verb not in VERBS:
        raise Http404(verb)
    alert = access.get_alert(request.user, alert_id)
    if alert.classroom_id != classroom_id:
        raise Http404(str(alert_id))
    name = _name_on_toast(selectors.live_signal(alert_id, who=request.user))
    sentence = VERBS[verb](alert_id, request) % {"name": name}
    if not request.htmx:
        return redirect("portal:live", classroom_id)
    undo = "" if verb == "undo" else reverse("portal:act", args=[classroom_id, alert_id, "undo"])
    return render(request, "portal/_toast.html", {"sentence": sentence, "undo": undo})


def _name_on_toast(signal: Signal) -> str:
    return signal.pupil.short_name if signal.pupil else _("the class")


def _moment(text: str) -> datetime | None:
    """An aware moment; None for anything else."""
    try:
        found = parse_datetime(text)
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


@require_GET
@teacher_page
def student(request: HttpRequest, classroom_id: UUID, student_id: str) -> HttpResponse:
    """One pupil: the open signal in words, then the timeline and what was done; up to `until`, else up to now."""
    now = timezone.now()
    until = min(now, _moment(request.GET.get("until", "")) or now)
    classroom = access.get_classroom(request.user, classroom_id)
    span = timeline.span_of(request.GET.get("span", ""))
    page = selectors.student_page(
        student_id, who=request.user, since=until - span.length, until=until, now=now
    )
    if classroom_id not in page.classroom_ids:
        raise Http404(student_id)
    services.record_look(request.user, student_id=student_id, action="view_timeline")
    context = {
        "classroom": classroom,
        "page": page,
        "chart": timeline.chart_of(page),
        "rows": timeline.rows_of(page),
        "span": span,
        "spans": timeline.SPANS,
        "why": _why_context(request, classroom_id, student_id, now),
        "now": now,
        "intervention_kinds": HELP_KINDS.items(),
        "section": "student",
    }
    return render(request, "portal/student.html", context)


def _why_context(request: HttpRequest, classroom_id: UUID, student_id: str, now: datetime) -> dict[str, Any]:
    """The form for a minute, and the answer where one is asked for; asking is a look of its own."""
    asked = request.GET.get("why")
    at = why.minute_of(asked or "")
    found = {
        "at": at,
        "value": why.field_of(at or now),
        "latest": why.field_of(now),
        "error": "",
        "answers": None,
    }
    if asked is None:
        return found
    if at is None:
        return {**found, "error": _("A day and a time, such as 24 Nov 2026 10:42.")}
    if at.replace(second=0, microsecond=0) > now:
        return {**found, "error": _("That minute is still to come.")}
    try:
        answer = selectors.student_why(
            student_id, who=request.user, at=min(at, now), classroom_id=classroom_id, now=now
        )
    except UsabilityError as refusal:
        if refusal.slug != "overloaded":
            raise
        return {**found, "error": _("There is too much to look through just now. Try again in a minute.")}
    services.record_look(request.user, student_id=student_id, action="view_explanation")
    return {**found, "answers": why.answers_of(answer.classes[0])}
