"""What this store speaks (xAPI 1.0.3, part three, section 2.8). Anybody may ask."""

from __future__ import annotations

from django.http import HttpResponse

from usability.xapi.versions import SPOKEN
from usability.xapi.web import Allowed, Call, Resource, json_answer


class About(Resource):
    """`about`."""

    allowed = {"GET": Allowed()}
    is_public = True

    def do_get(self, call: Call) -> HttpResponse:
        """The versions."""
        return json_answer({"version": list(reversed(SPOKEN))})
