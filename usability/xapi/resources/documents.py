"""State, activity profiles and agent profiles (xAPI 1.0.3, part three, sections 2.2, 2.3, 2.6, 2.7)."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpResponse
from django.utils.http import http_date

from gaia_site.bodies import decode_json
from gaia_site.problems import Problem
from usability.ingest.adapters.ids import student_id
from usability.xapi import asking, documents
from usability.xapi.actors import identifier_of, pseudonym_of
from usability.xapi.documents import ConditionFailed, Conditions, Exists, Owner, Unconditional
from usability.xapi.models import DocumentKind, XapiDocument
from usability.xapi.values import Wrong
from usability.xapi.versions import Version
from usability.xapi.web import Allowed, Call, Resource, done, json_answer

CONTENT_TYPE_LIMIT = 255
_UNSAID_TYPE = "application/octet-stream"


class Documents(Resource):
    """What the three have in common; `id_name` is the parameter that names one document."""

    kind: ClassVar[DocumentKind]
    id_name: ClassVar[str]

    def owner(self, call: Call) -> Owner:
        """Whose documents the parameters name."""
        raise NotImplementedError

    def conditions(self, call: Call) -> Conditions:
        """The conditions of the request. Profiles are never replaced blindly, states only by 1.0.3.

        The conformance suite of 1.0.3 wants a condition even where a profile is new; 2.0 does not.
        """
        is_profile = self.kind is not DocumentKind.STATE
        return Conditions(
            if_match=call.headers.get("if-match", ""),
            if_none_match=call.headers.get("if-none-match", ""),
            is_required=is_profile or call.version is Version.V2,
            is_always_required=is_profile and call.version is Version.V1,
        )

    def do_get(self, call: Call) -> HttpResponse:
        """The document, or the ids of all where none is named."""
        name, owner = asking.name_of(call, self.id_name), self.owner(call)
        if name is not None:
            found = documents.find(owner, name)
            if found is None:
                raise Problem("not-found", "There is no such document.")
            return _document(found)
        names, newest = documents.ids(owner, asking.moment(call, "since"))
        return json_answer(
            names, headers={"Last-Modified": http_date(newest.timestamp())} if newest else None
        )

    def do_put(self, call: Call) -> HttpResponse:
        """Store it in place of what is there."""
        return self._written(documents.replace, call)

    def do_post(self, call: Call) -> HttpResponse:
        """Store it, or join it with the object that is there."""
        return self._written(documents.merge, call)

    def do_delete(self, call: Call) -> HttpResponse:
        """Take it out; a learner's states all at once where none is named."""
        name = asking.name_of(call, self.id_name)
        return self._obeyed(documents.delete, self.owner(call), name, self.conditions(call))

    def _written(self, write: Any, call: Call) -> HttpResponse:
        name = asking.name_of(call, self.id_name)
        content_type = call.headers.get("content-type", "")[:CONTENT_TYPE_LIMIT] or _UNSAID_TYPE
        if call.content_type == documents.JSON:
            decode_json(call.body)
        return self._obeyed(write, self.owner(call), name, content_type, call.body, self.conditions(call))

    @staticmethod
    def _obeyed(change: Any, *told: Any) -> HttpResponse:
        try:
            change(*told)
        except ConditionFailed as error:
            raise Problem(
                "precondition-failed", "The document is not as If-Match or If-None-Match says."
            ) from error
        except Exists as error:
            raise Problem(
                "conflict", "There is such a document: read it and send If-Match with its ETag to replace it."
            ) from error
        except Unconditional as error:
            raise Wrong(("header", "if-none-match"), "send If-None-Match: * to make a profile") from error
        return done()


def _document(found: XapiDocument) -> HttpResponse:
    headers = {
        "ETag": f'"{found.etag}"',
        "Last-Modified": http_date(found.updated_at.timestamp()),
        # A document is whatever an app left; a browser shall not take it for a page of ours.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return HttpResponse(bytes(found.content), content_type=found.content_type, headers=headers)


def _agent(call: Call) -> dict[str, Any]:
    found = asking.agent(call)
    assert found is not None
    return found


class State(Documents):
    """`activities/state`."""

    kind = DocumentKind.STATE
    id_name = "stateId"
    allowed = {
        "PUT": Allowed(
            frozenset({"activityId", "agent", "registration", "stateId"}), ("activityId", "agent", "stateId")
        ),
        "POST": Allowed(
            frozenset({"activityId", "agent", "registration", "stateId"}), ("activityId", "agent", "stateId")
        ),
        "GET": Allowed(
            frozenset({"activityId", "agent", "registration", "stateId", "since"}), ("activityId", "agent")
        ),
        "DELETE": Allowed(
            frozenset({"activityId", "agent", "registration", "stateId"}), ("activityId", "agent")
        ),
    }

    def owner(self, call: Call) -> Owner:
        """A learner in an activity."""
        found = _agent(call)
        return Owner(
            app_name=call.app_name,
            kind=self.kind,
            activity=asking.iri(call, "activityId") or "",
            agent=identifier_of(found),
            student_id=student_id(pseudonym_of(found)),
            registration=asking.identity(call, "registration"),
        )


class ActivityProfile(Documents):
    """`activities/profile`."""

    kind = DocumentKind.ACTIVITY_PROFILE
    id_name = "profileId"
    allowed = {
        "PUT": Allowed(frozenset({"activityId", "profileId"}), ("activityId", "profileId")),
        "POST": Allowed(frozenset({"activityId", "profileId"}), ("activityId", "profileId")),
        "GET": Allowed(frozenset({"activityId", "profileId", "since"}), ("activityId",)),
        "DELETE": Allowed(frozenset({"activityId", "profileId"}), ("activityId", "profileId")),
    }

    def owner(self, call: Call) -> Owner:
        """An activity."""
        return Owner(app_name=call.app_name, kind=self.kind, activity=asking.iri(call, "activityId") or "")


class AgentProfile(Documents):
    """`agents/profile`."""

    kind = DocumentKind.AGENT_PROFILE
    id_name = "profileId"
    allowed = {
        "PUT": Allowed(frozenset({"agent", "profileId"}), ("agent", "profileId")),
        "POST": Allowed(frozenset({"agent", "profileId"}), ("agent", "profileId")),
        "GET": Allowed(frozenset({"agent", "profileId", "since"}), ("agent",)),
        "DELETE": Allowed(frozenset({"agent", "profileId"}), ("agent", "profileId")),
    }

    def owner(self, call: Call) -> Owner:
        """An agent."""
        found = _agent(call)
        return Owner(
            app_name=call.app_name,
            kind=self.kind,
            agent=identifier_of(found),
            student_id=student_id(pseudonym_of(found)),
        )
