"""The app's place in Django."""

from django.apps import AppConfig


class UsabilityConfig(AppConfig):
    """The usability half."""

    name = "usability"
    verbose_name = "Usability"
    default_auto_field = "django.db.models.BigAutoField"
