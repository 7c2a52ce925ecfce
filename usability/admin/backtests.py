"""Back-tests in the admin: a form, a run beside the workers, a page of what came out, a new profile version."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, render
from django.urls import path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST

from usability.admin.window import Window
from usability.backtest import queue
from usability.backtest.wish import WishError, from_json, make_wish, parameters
from usability.errors import UsabilityError
from usability.kinds import ProfileState, RunState
from usability.models import App, BackTest, Classroom, DetectorProfile
from usability.policies import PRESETS
from usability.portal import words
from usability.services.profiles import save_candidate

MOMENT = "%Y-%m-%dT%H:%M"
# The fields of a wish by the names of the form.
FIELDS = {
    "classroom": "classrooms",
    "set": "changes",
    "since": "since",
    "until": "until",
    "profile": "profile",
}


def moment_field(label: str, hint: str = "") -> forms.DateTimeField:
    """A moment in UTC as the browser's own control gives it."""
    return forms.DateTimeField(
        label=label,
        help_text=hint,
        input_formats=[MOMENT, "%Y-%m-%dT%H:%M:%S"],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MOMENT),
    )


class AskForm(forms.ModelForm):
    """What to replay, and through which parameters."""

    classrooms = forms.ModelMultipleChoiceField(
        Classroom.objects.none(),
        label="Classes",
        help_text="One or more; hold Ctrl to choose several.",
        widget=forms.SelectMultiple(attrs={"size": 6}),
    )
    app_name = forms.ChoiceField(label="App", required=False)
    since = moment_field("Since (UTC)")
    until = moment_field("Until (UTC)")
    profile = forms.ChoiceField(
        label="Begin from",
        required=False,
        help_text="The parameters that are tried before the changes below.",
    )
    changes = forms.CharField(
        label="Changes",
        required=False,
        widget=forms.Textarea(attrs={"rows": 5, "class": "vLargeTextField mono", "spellcheck": "false"}),
        help_text="One a line, such as error_streak.warn=4. All names stand below.",
    )

    class Meta:
        model = BackTest
        fields: list[str] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["classrooms"].queryset = Classroom.objects.filter(is_archived=False).order_by("name")
        apps = App.objects.order_by("name").values_list("name", flat=True)
        self.fields["app_name"].choices = [("", "every app"), *((name, name) for name in apps)]
        self.fields["profile"].choices = [
            ("", "what holds now in each class"),
            *((name, f"preset: {words.PRESETS[name][0]}") for name in PRESETS),
            *((str(row.pk), f"{row} ({row.get_state_display()})") for row in _profiles()),
        ]
        now = timezone.now().replace(second=0, microsecond=0)
        self.fields["since"].initial = now - dt.timedelta(days=7)
        self.fields["until"].initial = now

    def clean(self) -> dict[str, Any]:
        """Whatever the fold would refuse is told at its field."""
        found = super().clean() or self.cleaned_data
        if self.errors:
            return found
        try:
            self.instance.wish = make_wish(
                classrooms=[str(one.pk) for one in found["classrooms"]],
                since=found["since"],
                until=found["until"],
                app_name=found["app_name"],
                profile=found["profile"],
                changes=found["changes"].splitlines(),
            ).as_json()
        except WishError as wrong:
            for field, message in wrong.errors:
                self.add_error(FIELDS[field], message)
        return found


def _profiles() -> Any:
    return (
        DetectorProfile.objects.select_related("classroom")
        .exclude(state=ProfileState.RETIRED)
        .order_by("app_name", "classroom__name", "-version")[:200]
    )


@admin.register(BackTest)
class BackTestAdmin(Window):
    """Asked for here, run beside a worker, shown here."""

    list_display = ["created_at", "created_by", "what", "changes_in_words", "state", "outcome"]
    list_filter = ["state", "created_at"]
    list_select_related = ["created_by"]
    ordering = ["-created_at"]
    form = AskForm
    add_form_template = "admin/usability/backtest/ask.html"
    change_form_template = "admin/usability/backtest/result.html"
    fieldsets = [
        ("Which metrics", {"fields": ["classrooms", "app_name", ("since", "until")]}),
        ("Which parameters", {"fields": ["profile", "changes"]}),
    ]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("usability.add_backtest")

    def get_urls(self) -> list[Any]:
        """The run's state as a fragment, and saving what was tried."""
        view = self.admin_site.admin_view
        return [
            path("<uuid:key>/state/", view(self.state_view), name="usability_backtest_state"),
            path("<uuid:key>/save/", view(self.save_view), name="usability_backtest_save"),
            *super().get_urls(),
        ]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The form, with all parameters listed below it."""
        context = {"title": "New back-test", "parameters": parameters(), **(extra_context or {})}
        return super().add_view(request, form_url, context)

    def save_model(self, request: HttpRequest, obj: BackTest, form: Any, change: bool) -> None:  # noqa: FBT001
        """Queue it."""
        row = queue.ask(from_json(obj.wish), who=request.user)
        obj.pk, obj.created_by = row.pk, row.created_by
        obj._state.adding = False

    def _refused(self, request: HttpRequest, refusal: UsabilityError) -> HttpResponse:
        """Back to the list with the reason."""
        messages.error(request, refusal.detail)
        return HttpResponseRedirect(reverse("admin:usability_backtest_changelist"))

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The form, or the page of a run."""
        if object_id is not None:
            return self.result_view(request, object_id)
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except UsabilityError as refusal:
            return self._refused(request, refusal)

    def response_add(
        self, request: HttpRequest, obj: BackTest, post_url_continue: str | None = None
    ) -> HttpResponse:
        """To the page of the run."""
        return HttpResponseRedirect(reverse("admin:usability_backtest_change", args=[obj.pk]))

    def result_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """How far it is, or what came out."""
        try:
            key = UUID(object_id)
        except ValueError:
            raise Http404(object_id) from None
        row = self._row(request, key)
        context = {
            **self.admin_site.each_context(request),
            **_result_context(row),
            "opts": self.opts,
            "title": str(row).capitalize(),
            "may_save": request.user.has_perm("usability.add_detectorprofile"),
        }
        return render(request, "admin/usability/backtest/result.html", context)

    def state_view(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """The part of the page that changes while it runs."""
        row = self._row(request, key)
        may_save = request.user.has_perm("usability.add_detectorprofile")
        return render(
            request, "admin/usability/backtest/_state.html", {**_result_context(row), "may_save": may_save}
        )

    @method_decorator(require_POST)
    def save_view(self, request: HttpRequest, key: UUID) -> HttpResponse:
        """What was tried, as a new version."""
        row = self._row(request, key)
        back = HttpResponseRedirect(reverse("admin:usability_backtest_change", args=[key]))
        if not request.user.has_perm("usability.add_detectorprofile"):
            messages.error(request, "You may not make profiles.")
            return back
        try:
            made = save_candidate(
                from_json(row.wish),
                who=request.user,
                classroom_id=request.POST.get("classroom") or None,
                state=request.POST.get("state", ProfileState.DRAFT),
                note=request.POST.get("note", ""),
            )
        except UsabilityError as refusal:
            messages.error(request, refusal.detail)
            return back
        self.log_change(request, row, f"Saved as {made} ({made.get_state_display()}).")
        messages.success(request, f"Saved: {made}, {made.get_state_display()}.")
        return HttpResponseRedirect(reverse("admin:usability_detectorprofile_change", args=[made.pk]))

    def _row(self, request: HttpRequest, key: UUID) -> BackTest:
        if not self.has_view_permission(request):
            raise Http404
        return get_object_or_404(BackTest.objects.select_related("created_by"), pk=key)

    @admin.display(description="what")
    def what(self, row: BackTest) -> str:
        count = len(row.wish["classrooms"])
        return f"{count} {'class' if count == 1 else 'classes'}, {row.wish['since'][:10]} to {row.wish['until'][:10]}"

    @admin.display(description="changes")
    def changes_in_words(self, row: BackTest) -> str:
        said = [f"{name}={json.dumps(value)}" for name, value in row.wish["changes"][:3]]
        more = len(row.wish["changes"]) - 3
        return ", ".join(said) + (f" and {more} more" if more > 0 else "") or "none"

    @admin.display(description="outcome")
    def outcome(self, row: BackTest) -> str:
        if row.result is None:
            return row.error or "–"
        found = row.result["difference"]
        return f"{found['new']} new, {found['lost']} lost, {found['moved']} moved"


FAMILY_ORDER = tuple(words.FAMILIES)


def _result_context(row: BackTest) -> dict[str, Any]:
    """What the pages of a run show."""
    wish = row.wish
    names = dict(Classroom.objects.filter(pk__in=wish["classrooms"]).values_list("pk", "name"))
    profile = wish["profile"]
    context: dict[str, Any] = {
        "row": row,
        "is_unfinished": row.state in (RunState.QUEUED, RunState.RUNNING),
        "since": parse_datetime(wish["since"]),
        "until": parse_datetime(wish["until"]),
        "classrooms": sorted(names.items(), key=lambda pair: pair[1]),
        "profile": words.PRESETS[profile][0] if profile in words.PRESETS else profile or "what holds now",
        "changes": [(name, json.dumps(value)) for name, value in wish["changes"]],
        "percent": round(100 * row.metrics_done / row.metrics_total) if row.metrics_total else 0,
    }
    if row.result is not None:
        result = row.result
        families = sorted(
            result["present"]["by_family"].keys() | result["candidate"]["by_family"].keys(),
            key=lambda name: (FAMILY_ORDER.index(name) if name in FAMILY_ORDER else 99, name),
        )
        context |= {
            "result": result,
            "families": [
                (
                    words.family(name),
                    result["present"]["by_family"].get(name, 0),
                    result["candidate"]["by_family"].get(name, 0),
                )
                for name in families
            ],
            "examples": [
                (kind, title, [_shown(one) for one in result["examples"][kind]])
                for kind, title in (
                    ("new", "New: only the candidate raises these"),
                    ("lost", "Lost: only what holds raises these"),
                    ("moved", "Moved: raised earlier or later than a hold"),
                )
            ],
        }
    return context


def _shown(example: dict[str, Any]) -> dict[str, Any]:
    """An example with its moment, its words, and the page of the pupil at that moment."""
    at = parse_datetime(example["at"])
    link = ""
    if example["student_id"] and at is not None:
        link = reverse("portal:student", args=[example["classroom"], example["student_id"]])
        minute = at.strftime("%Y-%m-%dT%H:%MZ")
        link += f"?until={(at + dt.timedelta(minutes=10)).strftime('%Y-%m-%dT%H:%M:%SZ')}&why={minute}#why"
    return {**example, "moment": at, "family_words": words.family(example["family"]), "link": link}
