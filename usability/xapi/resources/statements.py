"""Statements: sent by PUT and POST, asked for by GET (xAPI 1.0.3, part three, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django.db import Error as DatabaseError
from django.http import HttpResponse
from django.utils.http import http_date

from gaia_site.problems import Problem
from usability.xapi import asking, multipart, query, receiving, shapes, store, taking, values
from usability.xapi.actors import identifier_of
from usability.xapi.multipart import Part
from usability.xapi.query import Filter, Found
from usability.xapi.references import Role, activities_in, key
from usability.xapi.values import Wrong
from usability.xapi.web import Allowed, Call, Resource, done, json_answer

CONSISTENT_THROUGH = "X-Experience-API-Consistent-Through"

_ONE = frozenset({"statementId", "voidedStatementId"})
_BESIDE_ONE = frozenset({"format", "attachments"})
_MANY = frozenset(
    {
        *(
            "agent",
            "verb",
            "activity",
            "registration",
            "related_activities",
            "related_agents",
            "since",
            "until",
        ),
        *("limit", "format", "attachments", "ascending", "cursor"),
    }
)


class Statements(Resource):
    """`statements`."""

    allowed = {
        "PUT": Allowed(frozenset({"statementId"}), ("statementId",)),
        "POST": Allowed(),
        "GET": Allowed(_ONE | _MANY),
    }

    def finish(self, call: Call | None, answer: HttpResponse) -> None:
        """Until when everything stored can be read; asked before a page is, so that it never says too much."""
        if call is None or call.principal is None or CONSISTENT_THROUGH in answer.headers:
            return
        try:
            answer.headers[CONSISTENT_THROUGH] = values.moment_text(store.consistent_through(call.app_name))
        except DatabaseError:
            # The answer says already that the database is away; the header is for those who can read.
            return

    def do_put(self, call: Call) -> HttpResponse:
        """Store one statement under the id of the address."""
        statement_id = asking.identity(call, "statementId")
        body = taking.body_of(call.headers.get("content-type", ""), call.body)
        value = taking.one_statement(body)
        if isinstance(value, dict):
            told = value.setdefault("id", str(statement_id))
            if isinstance(told, str) and told.lower() != str(statement_id):
                raise Wrong(("body", "id"), "not the statementId of the address")
        return done(receiving.headers_of(_received(call, body)))

    def do_post(self, call: Call) -> HttpResponse:
        """Store one or many; the answer is their ids."""
        body = taking.body_of(call.headers.get("content-type", ""), call.body)
        found = _received(call, body)
        return json_answer(found.ids, headers=receiving.headers_of(found))

    def do_get(self, call: Call) -> HttpResponse:
        """One statement, or a page of those that pass the filters."""
        through = store.consistent_through(call.app_name)
        names = _ONE & call.parameters.keys()
        answer = _one(call, names) if names else _page(call)
        answer.headers[CONSISTENT_THROUGH] = values.moment_text(through)
        return answer


def _received(call: Call, body: taking.Body) -> taking.Taken:
    sender = receiving.sender_of(call.caller, call.base_url, call.version)
    return receiving.receive(body, sender, call.request)


# ---------------------------------------------------------------- asking


def _one(call: Call, names: frozenset[str] | set[str]) -> HttpResponse:
    """The statement of an id; a voided one is only told to who asks for it as such."""
    extra = call.parameters.keys() - names - _BESIDE_ONE
    if len(names) > 1 or extra:
        raise Wrong(("query", min(extra or names)), "not beside statementId or voidedStatementId")
    name = next(iter(names))
    statement_id = asking.identity(call, name)
    assert statement_id is not None
    found = query.one(call.app_name, statement_id, is_voided=name == "voidedStatementId")
    if found is None:
        raise Problem("not-found", "There is no such statement.")
    body = _shaped([found], call)[0]
    headers = {"Last-Modified": http_date(found.stored.timestamp())}
    return _answer(body, [found], call, headers)


def _page(call: Call) -> HttpResponse:
    asked = _filter(call)
    found = query.page(call.app_name, asked)
    more = ""
    if found.has_more:
        last = found.statements[-1]
        told = call.parameters | {"cursor": asking.place_text(last.stored, last.id)}
        more = f"{call.path}?{urlencode(told)}"
    bodies = b",".join(_shaped(found.statements, call))
    body = b'{"statements":[' + bodies + b'],"more":' + _json_text(more) + b"}"
    headers = {}
    if found.statements:
        newest = max(one.stored for one in found.statements)
        headers["Last-Modified"] = http_date(newest.timestamp())
    return _answer(body, found.statements, call, headers)


def _json_text(text: str) -> bytes:
    return query.encode(text)


def _filter(call: Call) -> Filter:
    keys = []
    agent = asking.agent(call, or_group=True)
    if agent is not None:
        name = identifier_of(agent)
        if not name:
            raise Wrong(("query", "agent"), "an anonymous group cannot be looked for")
        keys.append(key(Role.ANY_AGENT if asking.flag(call, "related_agents") else Role.AGENT, name))
    verb = asking.iri(call, "verb")
    if verb is not None:
        keys.append(key(Role.VERB, verb))
    activity = asking.iri(call, "activity")
    if activity is not None:
        is_any = asking.flag(call, "related_activities")
        keys.append(key(Role.ANY_ACTIVITY if is_any else Role.ACTIVITY, activity))
    registration = asking.identity(call, "registration")
    if registration is not None:
        keys.append(key(Role.REGISTRATION, str(registration)))
    asking.flag(call, "related_agents")
    asking.flag(call, "related_activities")
    return Filter(
        keys=tuple(keys),
        since=asking.moment(call, "since"),
        until=asking.moment(call, "until"),
        limit=min(asking.whole_number(call, "limit") or query.PAGE_MOST, query.PAGE_MOST),
        is_ascending=asking.flag(call, "ascending"),
        after=asking.place(call),
    )


def _shaped(found: Sequence[Found], call: Call) -> list[bytes]:
    """The statements in the format that was asked for; as stored, they are never decoded."""
    form = call.parameters.get("format", "exact")
    if form not in shapes.FORMATS:
        raise Wrong(("query", "format"), f"must be one of {', '.join(shapes.FORMATS)}")
    if form == "exact":
        return [one.body for one in found]
    decoded = [one.decoded() for one in found]
    if form == "ids":
        return [query.encode(shapes.ids_only(one)) for one in decoded]
    iris = {activity["id"] for one in decoded for activity in activities_in(one)}
    definitions = query.definitions(call.app_name, iris)
    languages = shapes.languages_of(call.headers.get("accept-language", ""))
    return [query.encode(shapes.canonical(one, definitions, languages)) for one in decoded]


def _answer(body: bytes, found: Sequence[Found], call: Call, headers: dict[str, str]) -> HttpResponse:
    """The answer, with the attachments behind it where they were asked for."""
    if not asking.flag(call, "attachments"):
        return HttpResponse(body, content_type="application/json", headers=headers)
    digests = list(dict.fromkeys(sha2 for one in found for sha2 in one.attachments))
    contents = query.contents(call.app_name, digests)
    types = _types(found)
    parts = [Part(body, {"Content-Type": "application/json"})]
    parts += [
        Part(
            contents[sha2],
            {
                "Content-Type": types.get(sha2, "application/octet-stream"),
                "Content-Transfer-Encoding": "binary",
                "X-Experience-API-Hash": sha2,
            },
        )
        for sha2 in digests
        if sha2 in contents
    ]
    content_type, whole = multipart.put_together(parts)
    return HttpResponse(whole, content_type=content_type, headers=headers)


def _types(found: Sequence[Found]) -> dict[str, str]:
    """The media type of each attachment, as its statement says; it was checked to be one line."""
    told: dict[str, Any] = {}
    for one in found:
        if one.attachments:
            for attachment in taking.attachments_of(one.decoded()):
                told.setdefault(attachment["sha2"].lower(), attachment["contentType"])
    return told
