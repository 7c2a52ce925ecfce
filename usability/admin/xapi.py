"""The record store: a window on statements, documents and activities, for operators.

Lists show ids, verbs and times. What a learner typed stands in the body alone, which is read one at a time, and each
look at one is recorded.
"""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html

from gaia_site.keys import principal_of_user
from usability import services
from usability.admin.reported import EstimatingPaginator
from usability.admin.window import Window
from usability.models import Student
from usability.xapi.models import XapiActivity, XapiDocument, XapiStatement

SHOWN_CHARACTERS = 20_000


def _shown(value: Any) -> str:
    """A JSON value in lines, cut where it is endless."""
    return format_html("<pre>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False)[:SHOWN_CHARACTERS])


class OfLearner(Window):
    """Rows of single learners: who opens one is noted."""

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The page of one row."""
        row = self.get_object(request, object_id)
        if row is not None and row.student_id and Student.objects.filter(student_id=row.student_id).exists():
            services.record_looks(
                principal_of_user(request.user), student_ids=[row.student_id], action="view_xapi"
            )
        return super().change_view(request, object_id, form_url, extra_context)


@admin.register(XapiStatement)
class XapiStatementAdmin(OfLearner):
    list_display = ["stored", "app_name", "student_id", "verb", "statement_id", "is_voiding"]
    list_filter = ["is_voiding"]
    search_fields = ["student_id__exact", "statement_id__exact"]
    search_help_text = "The pseudonym of a pupil or the id of a statement, whole."
    ordering = ["-stored"]
    paginator = EstimatingPaginator
    fields = [
        "statement_id",
        "app_name",
        "stored",
        "student_id",
        "verb",
        "target_id",
        "is_voiding",
        "statement",
    ]
    readonly_fields = ["statement"]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """A list needs no bodies, which may be megabytes each."""
        return super().get_queryset(request).defer("body", "keys", "digest")

    @admin.display(description="statement")
    def statement(self, row: XapiStatement) -> str:
        return _shown(row.body)


@admin.register(XapiDocument)
class XapiDocumentAdmin(OfLearner):
    list_display = ["updated_at", "app_name", "kind", "document_id", "activity", "student_id", "content_type"]
    list_filter = ["kind"]
    search_fields = ["student_id__exact", "document_id__exact"]
    search_help_text = "The pseudonym of a pupil or the id of a document, whole."
    ordering = ["-updated_at"]
    paginator = EstimatingPaginator
    fields = [
        "document_id",
        "app_name",
        "kind",
        "activity",
        "student_id",
        "registration",
        "content_type",
        "etag",
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """What is in a document is the app's own affair: nobody reads it here."""
        return super().get_queryset(request).defer("content")


@admin.register(XapiActivity)
class XapiActivityAdmin(Window):
    list_display = ["iri", "app_name", "updated_at"]
    search_fields = ["iri"]
    ordering = ["-updated_at"]
    fields = ["iri", "app_name", "updated_at", "known"]
    readonly_fields = ["known"]
    paginator = EstimatingPaginator

    @admin.display(description="definition")
    def known(self, row: XapiActivity) -> str:
        return _shown(row.definition)
