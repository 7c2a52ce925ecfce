"""The Person of an agent (xAPI 1.0.3, part three, section 2.4)."""

from __future__ import annotations

from django.http import HttpResponse

from usability.xapi import actors, asking
from usability.xapi.web import Allowed, Call, Resource, json_answer


class Agents(Resource):
    """`agents`."""

    allowed = {"GET": Allowed(frozenset({"agent"}), ("agent",))}

    def do_get(self, call: Call) -> HttpResponse:
        """What the question itself says, as a Person."""
        return json_answer(actors.person(asking.agent(call) or {}))
