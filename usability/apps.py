from django.apps import AppConfig


class UsabilityConfig(AppConfig):
    name = "usability"
    verbose_name = "Usability"
    default_auto_field = "django.db.models.BigAutoField"
