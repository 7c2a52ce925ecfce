"""API keys in the admin: made here, shown once, revoked here."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from gaia_site.keys import issue_key, revoke_key
from gaia_site.models import ApiKey, Scope

admin.site.site_title = "GAIA admin"
admin.site.index_title = "What needs you now"
# The index and the tabs lead everywhere; a list needs the width for its columns.
admin.site.enable_nav_sidebar = False


class NewKeyForm(forms.ModelForm):
    """The fields of a new key."""

    scopes = forms.MultipleChoiceField(choices=Scope.choices, widget=forms.CheckboxSelectMultiple)
    allowed_origins = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="One origin a line, such as https://app.example; * allows all.",
    )

    class Meta:
        model = ApiKey
        fields: ClassVar = ["name", "owner", "scopes", "app_name", "allowed_origins", "expires_at"]

    def clean_allowed_origins(self) -> list[str]:
        """The lines."""
        return self.cleaned_data["allowed_origins"].split()

    def clean_expires_at(self) -> Any:
        """Not in the past."""
        expires_at = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("This is in the past.")
        return expires_at


@admin.register(ApiKey)
class ApiKeyAdmin(admin.ModelAdmin):
    """Who may call the API, and whether they do."""

    form = NewKeyForm
    list_display = (
        "name",
        "prefix",
        "owner",
        "scope_list",
        "app_name",
        "is_alive",
        "last_used_at",
        "expires_at",
        "created_at",
    )
    list_filter = ("revoked_at", "expires_at", "last_used_at")
    list_select_related = ("owner",)
    search_fields = ("name", "prefix", "app_name", "owner__username")
    search_help_text = "Name, prefix, app or owner."
    actions = ("revoke",)
    ordering = ("-created_at",)
    show_full_result_count = False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A key is what it was made as: make another, revoke this."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Revoked keys stay, so that the history can name them."""
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Who may make keys may end them."""
        return self.has_add_permission(request)

    @admin.display(description="scopes")
    def scope_list(self, key: ApiKey) -> str:
        """The scopes in a line."""
        return ", ".join(key.scopes)

    @admin.display(description="alive", boolean=True)
    def is_alive(self, key: ApiKey) -> bool:
        """Neither revoked nor expired."""
        return key.is_usable()

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: Any) -> None:
        """Issues the key; the secret stays in memory until the answer is written."""
        made, secret = issue_key(
            name=obj.name,
            owner=obj.owner,
            scopes=obj.scopes,
            app_name=obj.app_name,
            allowed_origins=obj.allowed_origins,
            expires_at=obj.expires_at,
        )
        obj.pk, obj.prefix = made.pk, made.prefix
        request.issued_secret = secret

    def response_add(self, request: HttpRequest, obj: ApiKey, post_url_continue: Any = None) -> HttpResponse:
        """The one page that shows the secret; it goes into no message, cookie or log."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "The new key",
            "key": obj,
            "secret": request.issued_secret,
        }
        answer = TemplateResponse(request, "admin/gaia_site/key.html", context)
        answer.headers["Cache-Control"] = "no-store"
        return answer

    @admin.action(description="Revoke: refused everywhere within a second", permissions=["revoke"])
    def revoke(self, request: HttpRequest, keys: QuerySet[ApiKey]) -> None:
        """Revoke each."""
        alive = [key for key in keys if key.revoked_at is None]
        for key in alive:
            revoke_key(key)
        self.message_user(request, f"{len(alive)} key{'s' if len(alive) != 1 else ''} revoked.")
