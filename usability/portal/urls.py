"""Addresses of the teacher portal."""

from __future__ import annotations

from django.urls import path

from usability.portal import class_pages, views

app_name = "portal"

urlpatterns = [
    path("", views.classes, name="classes"),
    path("sign-in/", views.SignIn.as_view(), name="sign-in"),
    path("sign-out/", views.SignOut.as_view(), name="sign-out"),
    path("theme/", views.theme, name="theme"),
    path("classes/<uuid:classroom_id>/", views.live, name="live"),
    path("classes/<uuid:classroom_id>/fragment/", views.live_fragment, name="live-fragment"),
    path("classes/<uuid:classroom_id>/trends/", class_pages.trends, name="trends"),
    path("classes/<uuid:classroom_id>/signals.csv", class_pages.signals_csv, name="signals-csv"),
    path("classes/<uuid:classroom_id>/settings/", class_pages.settings, name="settings"),
    path("classes/<uuid:classroom_id>/settings/budget/", class_pages.budget_preview, name="budget-preview"),
    path("classes/<uuid:classroom_id>/pause/", views.pause, name="pause"),
    path("classes/<uuid:classroom_id>/alerts/<uuid:alert_id>/<slug:verb>/", views.act, name="act"),
    path("classes/<uuid:classroom_id>/students/<path:student_id>/", views.student, name="student"),
]
