"""`python -m coordination.verify.prepare`: what an operator does once for a new system, in one process.

Makes the tables, a user nobody signs in as, and a key, which is printed as one JSON object. Only ever run with the
settings of a throw-away system.
"""

import os
import sys

import django
from django.core.management import call_command

USER = "verify"


def main() -> int:
    """Do it; the exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gaia_site.settings")
    django.setup()
    call_command("migrate", interactive=False, verbosity=0)
    call_command(
        "createsuperuser", interactive=False, verbosity=0, username=USER, email=f"{USER}@localhost.invalid"
    )
    call_command("create_api_key", name=USER, scope=["agent", "admin"], json=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
