"""What is known of an activity (xAPI 1.0.3, part three, section 2.5)."""

from __future__ import annotations

from django.http import HttpResponse

from usability.xapi import asking, query
from usability.xapi.web import Allowed, Call, Resource, json_answer


class Activities(Resource):
    """`activities`."""

    allowed = {"GET": Allowed(frozenset({"activityId"}), ("activityId",))}

    def do_get(self, call: Call) -> HttpResponse:
        """The activity, with its definition where a statement has brought one."""
        iri = asking.iri(call, "activityId") or ""
        known = query.definitions(call.app_name, [iri]).get(iri)
        definition = {} if known is None else {"definition": known}
        return json_answer({"objectType": "Activity", "id": iri} | definition)
