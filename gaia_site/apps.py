"""The site itself as an application: API keys, idempotency records, the API's documentation page."""

from __future__ import annotations

from django.apps import AppConfig


class SiteConfig(AppConfig):
    """No work at start-up; models and templates only."""

    name = "gaia_site"
    label = "gaia_site"
    verbose_name = "Access"
    default_auto_field = "django.db.models.BigAutoField"
