"""The coordination app: sessions, tasks, locks and lessons, agreed by the replicated log."""

from django.apps import AppConfig


class CoordinationConfig(AppConfig):
    """Names the app; does no work when it is ready (loops live in management commands)."""

    name = "coordination"
    verbose_name = "Coordination"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from coordination import checks  # noqa: F401, PLC0415  registration is the import's effect
