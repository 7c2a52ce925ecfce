"""Detector profiles: versions are written once; what changes is whether they are a draft, in shadow, active."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet, Sum
from django.db.models.functions import TruncDate
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from usability.admin.app_filter import AppFilter
from usability.admin.window import Window
from usability.backtest.wish import parameters
from usability.detection.policy import InvalidProfile, to_dict
from usability.errors import UsabilityError
from usability.kinds import ProfileState
from usability.models import Classroom, DetectorProfile, ShadowCount
from usability.policies import profile_of
from usability.services.profiles import save_version, set_state

SHADOW_DAYS = 14


class PrettyJSON(json.JSONEncoder):
    """Stored JSON as a person edits it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **(kwargs | {"indent": 2, "sort_keys": True}))


class ProfileForm(forms.ModelForm):
    """A new version; it is told where detection would not accept it."""

    class Meta:
        model = DetectorProfile
        fields = [
            *("classroom", "app_name", "state", "note"),
            *("alerts_per_10_min", "alert_burst", "quiet_hours", "parameters"),
        ]

    parameters = forms.JSONField(
        required=False,
        encoder=PrettyJSON,
        initial=dict,
        widget=forms.Textarea(attrs={"rows": 14, "class": "vLargeTextField mono", "spellcheck": "false"}),
        help_text=(
            'What differs from the defaults: {"error_streak": {"warn": 4}}, or by part: {"detectors": {…},'
            ' "episodes": {"hold_s": 40}}. All names stand below.'
        ),
    )
    quiet_hours = forms.JSONField(
        required=False,
        initial=list,
        widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField mono", "spellcheck": "false"}),
        help_text='[{"days": [1, 5], "from": "12:00", "until": "13:00"}], in the school’s zone; Monday is 1.',
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "classroom" in self.fields:
            rooms = Classroom.objects.filter(is_archived=False).select_related("school").order_by("name")
            self.fields["classroom"] = forms.ModelChoiceField(
                rooms, required=False, label="Class", empty_label="every class"
            )
        if "state" in self.fields:
            self.fields["state"].choices = [
                (one.value, one.label) for one in ProfileState if one != ProfileState.RETIRED
            ]
            self.fields["state"].initial = ProfileState.DRAFT

    def clean_parameters(self) -> dict[str, Any]:
        """An object, empty where nothing differs."""
        found = self.cleaned_data["parameters"] or {}
        if not isinstance(found, dict):
            raise ValidationError('An object such as {"error_streak": {"warn": 4}}.')
        return found

    def clean_quiet_hours(self) -> list[Any]:
        """A list, empty where there are none."""
        found = self.cleaned_data["quiet_hours"] or []
        if not isinstance(found, list) or not all(
            isinstance(one, dict) and {"from", "until"} <= one.keys() for one in found
        ):
            raise ValidationError('A list of {"days": [1..7], "from": "12:00", "until": "13:00"}.')
        return found

    def clean(self) -> dict[str, Any]:
        """The whole profile as detection would take it."""
        found = super().clean() or self.cleaned_data
        if self.errors:
            return found
        row = DetectorProfile(**{name: found[name] for name in self.Meta.fields if name in found})
        try:
            profile_of(row)
        except InvalidProfile as wrong:
            for place, message in wrong.errors:
                first = place[0] if place else ""
                field = {"quiet_hours": "quiet_hours", "budget": "alert_burst"}.get(first, "parameters")
                self.add_error(field, f"{'.'.join(place) or 'profile'}: {message}")
        except (TypeError, AttributeError):
            self.add_error("quiet_hours", "Days are whole numbers from 1 to 7.")
        return found


@admin.register(DetectorProfile)
class DetectorProfileAdmin(Window):
    """Versions with their states, what each would have raised in shadow, and who did what."""

    list_display = [
        *("place", "version", "state", "state_at", "budget", "created_by", "note"),
    ]
    list_display_links = ["place"]
    list_filter = ["state", ("app_name", AppFilter)]
    list_select_related = ["classroom", "created_by"]
    search_fields = ["app_name", "classroom__name", "note"]
    form = ProfileForm
    add_form_template = "admin/usability/detectorprofile/add.html"
    actions = ["put_in_shadow", "make_active", "retire"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("usability.add_detectorprofile")

    def get_fieldsets(self, request: HttpRequest, obj: DetectorProfile | None = None) -> list[Any]:
        """A form for a new version, a page of words for one that is there."""
        if obj is None:
            return [
                ("Where it holds", {"fields": ["classroom", "app_name", "state", "note"]}),
                ("Alert budget", {"fields": [("alerts_per_10_min", "alert_burst")]}),
                ("Quiet hours", {"fields": ["quiet_hours"]}),
                ("Parameters", {"fields": ["parameters"]}),
            ]
        return [
            ("Where it holds", {"fields": ["place", ("state", "state_at", "state_by"), "note"]}),
            ("Who made it", {"fields": [("created_by", "created_at")]}),
            ("Alert budget and quiet hours", {"fields": ["budget", "quiet"]}),
            ("What differs from the defaults", {"fields": ["differences"]}),
            ("In shadow, the last 14 days", {"fields": ["shadow"]}),
            ("What to do with it", {"fields": ["next_steps"]}),
            ("As stored", {"fields": ["parameters"], "classes": ["collapse"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: DetectorProfile | None = None) -> list[str]:
        """All of a version that is there."""
        if obj is None:
            return []
        return ["place", "budget", "quiet", "differences", "shadow", "next_steps"]

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """A new version begins from another where `from` names it."""
        initial = super().get_changeform_initial_data(request)
        key = request.GET.get("from", "")
        row = DetectorProfile.objects.filter(pk=key).first() if _is_uuid(key) else None
        if row is None:
            return initial
        names = ("classroom", "app_name", "alerts_per_10_min", "alert_burst", "quiet_hours", "parameters")
        return {**initial, **{name: getattr(row, name) for name in names}, "classroom": row.classroom_id}

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The form, with all parameters listed below it."""
        return super().add_view(request, form_url, {"parameters": parameters(), **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: DetectorProfile, form: Any, change: bool) -> None:  # noqa: FBT001
        """The next version of its place, by the service that numbers them."""
        names = ("alerts_per_10_min", "alert_burst", "quiet_hours", "parameters")
        made = save_version(
            who=request.user,
            classroom=obj.classroom,
            app_name=obj.app_name,
            state=obj.state,
            note=obj.note,
            changes={name: getattr(obj, name) for name in names},
        )
        obj.pk, obj.version, obj.created_by = made.pk, made.version, made.created_by
        obj._state.adding = False

    # ------------------------------------------------------------ states

    @admin.action(description="Put in shadow: count what it would raise", permissions=["add"])
    def put_in_shadow(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._move(request, queryset, ProfileState.SHADOW)

    @admin.action(description="Make active: detection goes by it within seconds", permissions=["add"])
    def make_active(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._move(request, queryset, ProfileState.ACTIVE)

    @admin.action(description="Retire", permissions=["add"])
    def retire(self, request: HttpRequest, queryset: QuerySet) -> None:
        self._move(request, queryset, ProfileState.RETIRED)

    def _move(self, request: HttpRequest, queryset: QuerySet, state: ProfileState) -> None:
        for row in queryset:
            try:
                moved = set_state(row.pk, state, who=request.user)
            except UsabilityError as refusal:
                messages.error(request, refusal.detail)
                continue
            self.log_change(request, moved, f"State: {moved.get_state_display()}.")
            messages.success(request, f"{moved}: {moved.get_state_display()}.")

    # ------------------------------------------------------------ words

    @admin.display(description="where", ordering="classroom__name")
    def place(self, row: DetectorProfile) -> str:
        where = row.classroom.name if row.classroom else "every class"
        return f"{where}, {row.app_name or 'every app'}"

    @admin.display(description="alert budget")
    def budget(self, row: DetectorProfile) -> str:
        return f"{row.alerts_per_10_min:g} in 10 min, {row.alert_burst} at once"

    @admin.display(description="quiet hours")
    def quiet(self, row: DetectorProfile) -> str:
        return "; ".join(f"{one['from']} to {one['until']}" for one in row.quiet_hours) or "none"

    @admin.display(description="differences")
    def differences(self, row: DetectorProfile) -> SafeString | str:
        try:
            found = to_dict(profile_of(row))
        except InvalidProfile as wrong:
            return f"detection does not accept it: {wrong}"
        named = {**found["detectors"], "episodes": found["episodes"], "class_stuck": found["class_stuck"]}
        said = [
            f"{one.name} is {json.dumps(value)} (default {json.dumps(one.default)})"
            for one in parameters()
            if not one.name.startswith("budget.") and (value := _value(named, one.name)) != one.default
        ]
        if not said:
            return "nothing: all parameters have their defaults"
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}</li>", ((one,) for one in said)))

    @admin.display(description="counted so far")
    def shadow(self, row: DetectorProfile) -> SafeString | str:
        days = list(
            ShadowCount.objects.filter(profile=row)
            .annotate(day=TruncDate("window_start"))
            .values("day")
            .annotate(
                raised=Sum("raised"),
                interrupting=Sum("interrupting"),
                present=Sum("present_raised"),
                present_interrupting=Sum("present_interrupting"),
            )
            .order_by("-day")[:SHADOW_DAYS]
        )
        if not days:
            return "nothing counted yet; a quarter of an hour is counted when it is over"
        lines = format_html_join(
            "",
            "<li>{}: would have raised {} ({} interrupting); what holds raised {} ({} interrupting)</li>",
            (
                (day["day"], day["raised"], day["interrupting"], day["present"], day["present_interrupting"])
                for day in days
            ),
        )
        return format_html("<ul>{}</ul>", lines)

    @admin.display(description="next")
    def next_steps(self, row: DetectorProfile) -> SafeString:
        return format_html(
            '<a href="{}?from={}">New version from this one</a> · <a href="{}?profile={}">Back-test it</a> · '
            '<a href="{}?q={}">Change its state in the list</a>',
            reverse("admin:usability_detectorprofile_add"),
            row.pk,
            reverse("admin:usability_backtest_add"),
            row.pk,
            reverse("admin:usability_detectorprofile_changelist"),
            row.classroom.name if row.classroom else row.app_name,
        )


def _value(named: dict[str, Any], name: str) -> Any:
    where: Any = named
    for part in name.split("."):
        where = where[part]
    return where


def _is_uuid(text: str) -> bool:
    return len(text) == 36 and all(part.isalnum() for part in text.split("-"))
