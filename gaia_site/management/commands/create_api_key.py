"""`manage.py create_api_key`: a new key to the API, printed once."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from gaia_site.keys import issue_key
from gaia_site.models import Scope


class Command(BaseCommand):
    """Makes a key, prints its secret and keeps only the hash."""

    help = "Create an API key and print it. It cannot be shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The fields of a key."""
        parser.add_argument("--name", required=True, help="what or who uses it")
        parser.add_argument(
            "--scope",
            required=True,
            nargs="+",
            choices=Scope.values,
            metavar="SCOPE",
            help=f"one or more of {', '.join(Scope.values)}",
        )
        parser.add_argument("--owner", help="user name it acts for; default: the first superuser")
        parser.add_argument(
            "--app", default="", help="the app a metrics:write key writes for; default: every app"
        )
        parser.add_argument("--origin", nargs="*", default=[], help="origins of pages that may use it, or *")
        parser.add_argument("--days", type=int, help="days until it expires; default: never")
        parser.add_argument(
            "--json", action="store_true", help="print one JSON object instead of the key alone"
        )

    def handle(self, **options: Any) -> None:
        """Prints the key on standard output, alone, so that a script can keep it."""
        days = options["days"]
        if days is not None and not 1 <= days <= 36_500:
            raise CommandError(f"--days must be from 1 to 36500, not {days}")
        try:
            key, secret = issue_key(
                name=options["name"],
                owner=_owner(options["owner"]),
                scopes=options["scope"],
                app_name=options["app"],
                allowed_origins=options["origin"],
                expires_at=timezone.now() + timedelta(days=days) if days else None,
            )
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        if options["json"]:
            described = {"id": str(key.pk), "name": key.name, "scopes": key.scopes, "key": secret}
            self.stdout.write(json.dumps(described))
        else:
            self.stdout.write(secret)
            self.stderr.write("This key is shown once. Keep it now.")


def _owner(username: str | None) -> Any:
    users = get_user_model().objects
    if username is None:
        owner = users.filter(is_superuser=True, is_active=True).order_by("pk").first()
        if owner is None:
            raise CommandError("There is no superuser yet: name one with --owner, or run createsuperuser.")
        return owner
    owner = users.filter(username=username).first()
    if owner is None:
        raise CommandError(f"There is no user {username!r}.")
    return owner
