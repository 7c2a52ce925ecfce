"""Sessions: register, heartbeat, change, pause, resume, drain, fail, leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import django_filters
from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from coordination import access, selectors, services
from coordination.api.endpoint import CoordinationEndpoint, in_order
from coordination.api.fields import (
    INTEGER_MOST,
    ObjectField,
    SessionNameField,
    StrictBooleanField,
    StrictCharField,
    StrictFloatField,
    StrictIntegerField,
    TimeWindowSerializer,
    capabilities,
)
from coordination.api.filters import Flag, choices_filter
from coordination.api.refusals import item
from coordination.errors import RejectedError
from coordination.models import ClaudeSession, Health, Lesson, Provider, SessionStatus, Tier
from coordination.services.sessions import METADATA_BYTES_MAX
from gaia_site.api.endpoint import StrictSerializer
from gaia_site.bodies import BATCH_LIMIT, too_large
from gaia_site.pagination import filtered, page
from gaia_site.problems import Problem, invalid
from gaia_site.schema import BatchLineSerializer, describes, list_parameters, one_or_many, page_of

TAG = "sessions"
ORDERINGS = ("created_at", "session_name", "updated_at")
TASKS_MOST = 1_000


class SessionSerializer(serializers.ModelSerializer):
    """One worker known to the cluster."""

    lesson_id = serializers.UUIDField(allow_null=True)
    time_windows = TimeWindowSerializer(many=True)

    class Meta:
        model = ClaudeSession
        fields = (
            "id",
            "session_name",
            "tier",
            "provider",
            "status",
            "health_status",
            "lease_expires_at",
            "last_heartbeat",
            "current_task_count",
            "max_concurrent_tasks",
            "consecutive_failures",
            "lesson_id",
            "time_windows",
            "time_window_start",
            "time_window_end",
            "capabilities",
            "metadata",
            "load",
            "tasks_completed",
            "tasks_failed",
            "avg_task_s",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class NewSessionSerializer(StrictSerializer):
    """What a session says of itself."""

    session_name = SessionNameField()
    tier = serializers.ChoiceField(choices=Tier.choices)
    provider = serializers.ChoiceField(choices=Provider.choices)
    max_concurrent_tasks = StrictIntegerField(min_value=1, max_value=TASKS_MOST, default=5)
    lesson_id = serializers.UUIDField(required=False, allow_null=True)
    time_windows = TimeWindowSerializer(many=True, required=False, max_length=20)
    capabilities = capabilities(required=False)
    metadata = ObjectField(bytes_most=METADATA_BYTES_MAX, required=False)
    accepts_push = StrictBooleanField(default=False, help_text="Take tasks handed over with a heartbeat.")
    lease_token = StrictIntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        max_value=INTEGER_MOST,
        help_text="Resumes a live lease.",
    )


class GrantedSessionSerializer(serializers.Serializer):
    """A granted lease."""

    id = serializers.UUIDField()
    session_name = serializers.CharField()
    tier = serializers.ChoiceField(choices=Tier.choices)
    provider = serializers.ChoiceField(choices=Provider.choices)
    status = serializers.ChoiceField(choices=SessionStatus.choices)
    health_status = serializers.ChoiceField(choices=Health.choices)
    lease_token = serializers.IntegerField(help_text="Proof of the lease; grows with every grant.")
    lease_expires_at = serializers.DateTimeField()
    heartbeat_interval_s = serializers.FloatField()
    current_task_count = serializers.IntegerField()
    max_concurrent_tasks = serializers.IntegerField()
    lesson_id = serializers.UUIDField(allow_null=True)
    time_windows = TimeWindowSerializer(many=True)
    capabilities = serializers.ListField(child=serializers.CharField())
    metadata = ObjectField(bytes_most=METADATA_BYTES_MAX)
    how = serializers.ChoiceField(choices=["new", "resumed", "takeover", "updated", "unchanged"])


class ChangedSessionSerializer(StrictSerializer):
    """What may be changed of a session; what is not named stays."""

    max_concurrent_tasks = StrictIntegerField(required=False, min_value=1, max_value=TASKS_MOST)
    lesson_id = serializers.UUIDField(required=False, allow_null=True)
    time_windows = TimeWindowSerializer(many=True, required=False, max_length=20)
    capabilities = capabilities(required=False)
    metadata = ObjectField(bytes_most=METADATA_BYTES_MAX, required=False)
    lease_token = StrictIntegerField(required=False, allow_null=True, min_value=1, max_value=INTEGER_MOST)


class ProgressSerializer(StrictSerializer):
    """Progress of one claimed task."""

    task_id = serializers.UUIDField()
    claim_token = StrictIntegerField(min_value=1, max_value=INTEGER_MOST)
    percent = StrictIntegerField(min_value=0, max_value=100, default=0)
    note = StrictCharField(max_length=255, allow_blank=True, default="")


class HeartbeatSerializer(StrictSerializer):
    """Renews a lease."""

    lease_token = StrictIntegerField(min_value=1, max_value=INTEGER_MOST)
    load = StrictFloatField(required=False, allow_null=True, min_value=0, max_value=1_000)
    status = serializers.ChoiceField(choices=SessionStatus.choices, required=False, allow_null=True)
    progress = ProgressSerializer(many=True, required=False, max_length=TASKS_MOST)


class NamedHeartbeatSerializer(HeartbeatSerializer):
    """A heartbeat of one of many sessions."""

    session_name = SessionNameField()


class DirectiveSerializer(serializers.Serializer):
    """What a session is told to do."""

    kind = serializers.ChoiceField(choices=["drain", "pause", "resume", "cancel_task", "assigned"])
    task_id = serializers.UUIDField(required=False)
    claim_token = serializers.IntegerField(required=False)
    reason = serializers.CharField(required=False)
    task_type = serializers.CharField(required=False)
    attempt = serializers.IntegerField(required=False)
    claim_expires_at = serializers.DateTimeField(required=False)


class HeartbeatAnswerSerializer(serializers.Serializer):
    """The renewed lease."""

    lease_expires_at = serializers.DateTimeField()
    status = serializers.ChoiceField(choices=SessionStatus.choices)
    directives = DirectiveSerializer(many=True)


class HeartbeatsSerializer(StrictSerializer):
    """Heartbeats of many sessions at once."""

    heartbeats = serializers.ListField(child=serializers.JSONField(), allow_empty=True)


class RefusedHeartbeatSerializer(serializers.Serializer):
    """Why one was not accepted."""

    session_name = serializers.CharField(allow_null=True)
    type = serializers.CharField()
    detail = serializers.CharField()


class HeartbeatsAnswerSerializer(serializers.Serializer):
    """How many leases were renewed, and which were not."""

    accepted = serializers.IntegerField()
    rejected = RefusedHeartbeatSerializer(many=True)


class ReasonSerializer(StrictSerializer):
    """Why; and, from the session itself, its lease."""

    reason = StrictCharField(required=False, allow_blank=True, max_length=500, default="")
    lease_token = StrictIntegerField(required=False, allow_null=True, min_value=1, max_value=INTEGER_MOST)


class ReleasedSerializer(serializers.Serializer):
    """A session that failed or left, and what became of its tasks."""

    session_name = serializers.CharField()
    status = serializers.ChoiceField(choices=["failed", "offline"])
    requeued = serializers.IntegerField(help_text="Tasks back in the queue.")
    failed = serializers.IntegerField(help_text="Tasks that had no retries left.")


class SessionFilter(django_filters.FilterSet):
    """Which sessions."""

    status = choices_filter(SessionStatus)
    health_status = choices_filter(Health)
    tier = choices_filter(Tier)
    provider = choices_filter(Provider)
    lesson_id = django_filters.UUIDFilter(field_name="lesson_id")
    available = Flag(method="filter_available", help_text="Can take a task now.")

    class Meta:
        model = ClaudeSession
        fields: tuple[str, ...] = ()

    def filter_available(
        self, rows: QuerySet[ClaudeSession], name: str, value: Any
    ) -> QuerySet[ClaudeSession]:
        """Those that can, or cannot, take a task now."""
        available = ClaudeSession.objects.available()
        return (
            rows.filter(pk__in=available.values("pk"))
            if value
            else rows.exclude(pk__in=available.values("pk"))
        )


class Sessions(CoordinationEndpoint):
    """All sessions."""

    scopes = {"GET": ("agent", "admin"), "POST": ("agent", "admin")}

    @describes(
        tag=TAG,
        summary="List sessions",
        answers={200: page_of(SessionSerializer)},
        parameters=list_parameters(SessionFilter, ORDERINGS),
        reads_coordination=True,
        operation_id="list_sessions",
    )
    def get(self, request: Request) -> Response:
        """One page."""
        rows = filtered(SessionFilter, request.query_params, access.sessions(self.caller))
        revision = self.read_index()
        found = page(request, rows, orderings=ORDERINGS)
        return self.answer(found.as_json(SessionSerializer(found.rows, many=True).data), revision=revision)

    @describes(
        tag=TAG,
        summary="Register a session, or a list of them",
        about="A live name is 409, unless its lease_token is sent (resume) or its lease is over (takeover: a new token, "
        "old claims released). A list answers 200 with one `{status, …}` each, in order; there `state` is the session's status.",
        request=one_or_many(NewSessionSerializer),
        answers={201: GrantedSessionSerializer, 200: BatchLineSerializer(many=True)},
        errors=(409,),
        operation_id="register_session",
    )
    def post(self, request: Request) -> Response:
        """201, or 200 for a list."""
        self.only()
        items = self.items()
        if items is not None:
            return self._post_many(items)
        wish = self.body(NewSessionSerializer)
        check_lesson(wish.get("lesson_id"))
        grant = services.register_session(
            self._new(wish), actor=self.caller.actor, request_id=self.command_id
        )
        return self.answer(_granted(wish, grant), revision=grant.revision, status=201)

    def _post_many(self, items: list[Any]) -> Response:
        good, bad = self.check_items(items, NewSessionSerializer)
        lessons = _known_lessons(wish.get("lesson_id") for wish in good.values())
        for place in [
            place for place, wish in good.items() if (wish.get("lesson_id") or None) not in {None, *lessons}
        ]:
            bad[place] = item(no_such_lesson(("body", place, "lesson_id")))
            del good[place]
        answers = (
            services.register_sessions(
                [self._new(wish) for wish in good.values()],
                actor=self.caller.actor,
                request_id=self.command_id,
            )
            if good
            else []
        )
        done = {
            place: item(answer) if isinstance(answer, RejectedError) else item(_granted(wish, answer), 201)
            for (place, wish), answer in zip(good.items(), answers, strict=True)
        }
        return self.answer(
            in_order(done, bad), revision=max((answer.revision for answer in answers), default=0)
        )

    def _new(self, wish: Mapping[str, Any]) -> services.NewSession:
        return services.NewSession(
            session_name=wish["session_name"],
            tier=wish["tier"],
            provider=wish["provider"],
            max_concurrent_tasks=wish["max_concurrent_tasks"],
            lesson_id=wish.get("lesson_id"),
            time_windows=tuple(wish.get("time_windows", ())),
            capabilities=tuple(wish.get("capabilities", ())),
            metadata=wish.get("metadata", {}),
            accepts_push=wish["accepts_push"],
            user_id=self.caller.user.pk if self.caller.user else None,
            lease_token=wish.get("lease_token") or 0,
        )


class OneSession(CoordinationEndpoint):
    """A call about one session."""

    def check_own(self, session: ClaudeSession, lease_token: int | None) -> None:
        """Raises unless the caller is the session itself or operates the system.

        The session itself shows its lease, or calls with a key of the person it was registered by.
        """
        if lease_token is not None and lease_token != session.lease_token:
            raise Problem("lease-expired", "This lease_token is not the session's.")
        owner_id = self.caller.user.pk if self.caller.user else None
        is_own = lease_token is not None or (owner_id is not None and owner_id == session.user_id)
        if not is_own and not access.may_operate(self.caller):
            raise Problem(
                "permission-denied", "Send the session's lease_token, or use a key with the scope admin."
            )


class Session(OneSession):
    """One session."""

    scopes = {"GET": ("agent", "admin"), "PATCH": ("agent", "admin"), "DELETE": ("agent", "admin")}

    @describes(
        tag=TAG,
        summary="One session",
        answers={200: SessionSerializer},
        errors=(404,),
        reads_coordination=True,
        operation_id="get_session",
    )
    def get(self, request: Request, name: str) -> Response:
        """The session."""
        self.only("consistency", "min_index")
        revision = self.read_index()
        session = selectors.session(name)
        return self.answer(SessionSerializer(session).data, revision=revision)

    @describes(
        tag=TAG,
        summary="Change a session",
        request=ChangedSessionSerializer,
        answers={200: SessionSerializer},
        errors=(404, 409),
        operation_id="update_session",
    )
    def patch(self, request: Request, name: str) -> Response:
        """The session as it is now."""
        self.only()
        change = self.body(ChangedSessionSerializer)
        session = selectors.session(name)
        self.check_own(session, change.pop("lease_token", None))
        check_lesson(change.get("lesson_id"))
        if "lesson_id" in change:
            change["lesson_id"] = change["lesson_id"] or ""
        for listed in ("time_windows", "capabilities"):
            if listed in change:
                change[listed] = tuple(change[listed])
        grant = services.update_session(name, actor=self.caller.actor, request_id=self.command_id, **change)
        shown = (
            SessionSerializer(session).data
            | _written(change)
            | {
                "status": grant.status,
                "health_status": grant.health_status,
                "lease_expires_at": grant.lease_expires_at,
                "max_concurrent_tasks": grant.max_concurrent_tasks,
                "current_task_count": grant.current_task_count,
            }
        )
        return self.answer(shown, revision=grant.revision)

    @describes(
        tag=TAG,
        summary="Say goodbye",
        about="Its claims go back to the queue at once and its locks are freed.",
        answers={200: ReleasedSerializer},
        errors=(404, 409),
        operation_id="deregister_session",
    )
    def delete(self, request: Request, name: str) -> Response:
        """What became of its tasks."""
        self.only()
        wish = self.body(ReasonSerializer) if request.data else {}
        self.check_own(selectors.session(name), wish.get("lease_token"))
        released = services.deregister_session(
            name,
            actor=self.caller.actor,
            lease_token=wish.get("lease_token") or 0,
            reason=wish.get("reason", ""),
            request_id=self.command_id,
        )
        return self.answer(_released(released, "offline"), revision=released.revision)


class Heartbeat(CoordinationEndpoint):
    """The heartbeat of one session."""

    scopes = {"POST": ("agent", "admin")}

    @describes(
        tag=TAG,
        summary="Renew a lease",
        about="An expired or foreign token is 409 lease-expired. `directives` say what to do.",
        request=HeartbeatSerializer,
        answers={200: HeartbeatAnswerSerializer},
        errors=(404, 409),
        operation_id="send_heartbeat",
    )
    def post(self, request: Request, name: str) -> Response:
        """The renewed lease."""
        self.only()
        wish = self.body(HeartbeatSerializer)
        done = services.record_heartbeat(
            heartbeat_of(name, wish), actor=self.caller.actor, request_id=self.command_id
        )
        return self.answer(heartbeat_answer(done), revision=done.revision)


class Heartbeats(CoordinationEndpoint):
    """The heartbeats of many sessions."""

    scopes = {"POST": ("agent", "admin")}

    @describes(
        tag=TAG,
        summary="Renew many leases",
        request=HeartbeatsSerializer,
        answers={200: HeartbeatsAnswerSerializer},
        operation_id="send_heartbeats",
    )
    def post(self, request: Request) -> Response:
        """How many were renewed, and which were not."""
        self.only()
        items = self.body(HeartbeatsSerializer)["heartbeats"]
        if len(items) > BATCH_LIMIT:
            raise too_large("The batch", f"{BATCH_LIMIT:,} items")
        good, bad = self.check_items(items, NamedHeartbeatSerializer)
        wishes = [heartbeat_of(wish["session_name"], wish) for wish in good.values()]
        done = services.record_heartbeats(wishes, actor=self.caller.actor) if wishes else []
        answer = heartbeats_answer(wishes, done)
        answer["rejected"] += [
            {"session_name": _name_in(items[place]), "type": one["type"], "detail": one["detail"]}
            for place, one in bad.items()
        ]
        return self.answer(answer, revision=max((one.revision for one in done), default=0))


class _Transition(OneSession):
    """A change of a session's status, by an admin or by the session itself."""

    scopes = {"POST": ("agent", "admin")}

    def wish(self, name: str) -> Mapping[str, Any]:
        """The body, once the caller has shown that the session is theirs to change."""
        self.only()
        wish = self.body(ReasonSerializer) if self.request.data else {"reason": ""}
        self.check_own(selectors.session(name), wish.get("lease_token"))
        return wish

    def changed(self, name: str, to: str) -> Response:
        """The session after the change."""
        wish = self.wish(name)
        session = selectors.session(name)
        grant = services.set_session_status(
            name, to, actor=self.caller.actor, reason=wish["reason"], request_id=self.command_id
        )
        shown = SessionSerializer(session).data | {
            "status": grant.status,
            "health_status": grant.health_status,
            "current_task_count": grant.current_task_count,
        }
        return self.answer(shown, revision=grant.revision)


def _describes_transition(verb: str, about: str) -> Any:
    return describes(
        tag=TAG,
        summary=f"{verb.capitalize()} a session",
        about=about,
        request=ReasonSerializer,
        answers={200: SessionSerializer},
        errors=(404, 409),
        operation_id=f"{verb}_session",
    )


class Pause(_Transition):
    """Pause."""

    @_describes_transition("pause", "It keeps its tasks and takes no more until resumed.")
    def post(self, request: Request, name: str) -> Response:
        """The session."""
        return self.changed(name, SessionStatus.PAUSED.value)


class Resume(_Transition):
    """Resume."""

    @_describes_transition("resume", "It takes tasks again, also after it was failed.")
    def post(self, request: Request, name: str) -> Response:
        """The session."""
        return self.changed(name, SessionStatus.IDLE.value)


class Drain(_Transition):
    """Drain."""

    @_describes_transition("drain", "It finishes what it has and takes no more.")
    def post(self, request: Request, name: str) -> Response:
        """The session."""
        return self.changed(name, SessionStatus.DRAINING.value)


class Fail(_Transition):
    """Fail."""

    @describes(
        tag=TAG,
        summary="Fail a session",
        about="Its tasks go back to the queue with the retry counted; its locks are freed.",
        request=ReasonSerializer,
        answers={200: ReleasedSerializer},
        errors=(404, 409),
        operation_id="fail_session",
    )
    def post(self, request: Request, name: str) -> Response:
        """What became of its tasks."""
        wish = self.wish(name)
        released = services.fail_session(
            name, wish["reason"], actor=self.caller.actor, request_id=self.command_id
        )
        return self.answer(_released(released, "failed"), revision=released.revision)


# --- shared with the hot routes ------------------------------------------------------------------


def heartbeat_of(name: str, wish: Mapping[str, Any]) -> services.Heartbeat:
    """The service's heartbeat from a checked body."""
    return services.Heartbeat(
        session_name=name,
        lease_token=wish["lease_token"],
        load=wish.get("load"),
        status=wish.get("status"),
        progress=tuple(
            services.Progress(step["task_id"], step["claim_token"], step["percent"], step["note"])
            for step in wish.get("progress", ())
        ),
    )


def heartbeat_answer(done: services.HeartbeatDone) -> dict[str, Any]:
    """The body that answers one heartbeat."""
    return {
        "lease_expires_at": done.lease_expires_at,
        "status": done.status,
        "directives": list(done.directives),
    }


def heartbeats_answer(
    wishes: list[services.Heartbeat], done: list[services.HeartbeatDone | RejectedError]
) -> dict[str, Any]:
    """The body that answers many."""
    rejected = [
        {"session_name": wish.session_name, "type": one.code, "detail": one.detail}
        for wish, one in zip(wishes, done, strict=True)
        if isinstance(one, RejectedError)
    ]
    return {"accepted": len(done) - len(rejected), "rejected": rejected}


def check_lesson(lesson_id: Any) -> None:
    """Refuses a lesson that does not exist."""
    if lesson_id and lesson_id not in _known_lessons([lesson_id]):
        raise no_such_lesson(("body", "lesson_id"))


def no_such_lesson(loc: tuple[str | int, ...]) -> Problem:
    """The refusal of a lesson that does not exist."""
    return invalid(loc, "There is no such lesson.")


def _known_lessons(lesson_ids: Any) -> set[Any]:
    wanted = {lesson_id for lesson_id in lesson_ids if lesson_id}
    return set(Lesson.objects.filter(pk__in=wanted).values_list("pk", flat=True)) if wanted else set()


def _granted(wish: Mapping[str, Any], grant: services.SessionGrant) -> dict[str, Any]:
    return {
        "id": grant.id,
        "session_name": grant.session_name,
        "tier": wish["tier"],
        "provider": wish["provider"],
        "status": grant.status,
        "health_status": grant.health_status,
        "lease_token": grant.lease_token,
        "lease_expires_at": grant.lease_expires_at,
        "heartbeat_interval_s": grant.heartbeat_interval_s,
        "current_task_count": grant.current_task_count,
        "max_concurrent_tasks": grant.max_concurrent_tasks,
        **_written({"lesson_id": None, "time_windows": (), "capabilities": (), "metadata": {}} | dict(wish)),
        "how": grant.how,
    }


def _written(wish: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a wish that a session shows as they were written."""
    shown: dict[str, Any] = {}
    if "lesson_id" in wish:
        shown["lesson_id"] = wish["lesson_id"] or None
    if "time_windows" in wish:
        shown["time_windows"] = TimeWindowSerializer(wish["time_windows"], many=True).data
    if "capabilities" in wish:
        shown["capabilities"] = list(wish["capabilities"])
    if "metadata" in wish:
        shown["metadata"] = wish["metadata"]
    return shown


def _released(released: services.Released, status: str) -> dict[str, Any]:
    return {
        "session_name": released.session_name,
        "status": status,
        "requeued": released.requeued,
        "failed": released.failed,
    }


def _name_in(one: Any) -> str | None:
    name = one.get("session_name") if isinstance(one, Mapping) else None
    return name if isinstance(name, str) else None
