"""Tasks: into the queue, out of it, and how they end."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import django_filters
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from coordination import access, selectors, services
from coordination.api.endpoint import CoordinationEndpoint, in_order
from coordination.api.fields import (
    INTEGER_MOST,
    AnyJSONField,
    MomentField,
    ObjectField,
    SessionNameField,
    StrictBooleanField,
    StrictCharField,
    StrictFloatField,
    StrictIntegerField,
    capabilities,
)
from coordination.api.filters import choices_filter
from coordination.api.refusals import item
from coordination.errors import CoordinationError, NotFound
from coordination.machine.kinds import DependencyPolicy
from coordination.models import (
    TASK_DATA_BYTES_MAX,
    AttemptOutcome,
    DistributedTask,
    TaskAttempt,
    TaskStatus,
    Tier,
)
from coordination.services.tasks import ERROR_MESSAGE_MAX, RESULT_BYTES_MAX
from gaia_site.api.endpoint import StrictSerializer
from gaia_site.bodies import BATCH_LIMIT, too_large
from gaia_site.pagination import filtered, page
from gaia_site.problems import invalid
from gaia_site.schema import (
    BatchLineSerializer,
    describes,
    list_parameters,
    one_or_lines,
    one_or_many,
    page_of,
)

TAG = "tasks"
ORDERINGS = ("-created_at", "priority", "updated_at")
AGENTS = ("agent", "admin")
CLAIM_WAIT_MOST_S = 30
CLAIM_MOST = 100
PRIORITY_MOST = 1_000
RETRIES_MOST = 100
DEPENDENCIES_MOST = 100
CLAIM_TTL_MOST_S = 86_400
TIMEOUT_MOST_S = 30 * 86_400

_REFERENCES = {"lesson": "lesson_id", "session": "target_session", "task": "depends_on"}


class TaskSerializer(serializers.ModelSerializer):
    """One unit of work."""

    lesson_id = serializers.UUIDField(allow_null=True)
    target_session = serializers.SlugRelatedField(slug_field="session_name", read_only=True)
    claimed_by = serializers.SlugRelatedField(slug_field="session_name", read_only=True)
    result = AnyJSONField(bytes_most=RESULT_BYTES_MAX, read_only=True)
    task_data = ObjectField(bytes_most=TASK_DATA_BYTES_MAX, read_only=True)

    class Meta:
        model = DistributedTask
        fields = (
            "id",
            "idempotency_key",
            "task_type",
            "task_data",
            "status",
            "priority",
            "lesson_id",
            "target_session",
            "required_capabilities",
            "required_tier",
            "on_dependency_failure",
            "claimed_by",
            "claimed_at",
            "claim_expires_at",
            "claim_ttl_s",
            "run_after",
            "retry_count",
            "max_retries",
            "timeout_s",
            "progress",
            "progress_note",
            "result",
            "error_message",
            "completed_at",
            "created_by",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class AttemptSerializer(serializers.ModelSerializer):
    """One claim of a task and how it ended."""

    session_name = serializers.CharField(source="session.session_name", allow_null=True, default=None)
    outcome = serializers.ChoiceField(choices=AttemptOutcome.choices)

    class Meta:
        model = TaskAttempt
        fields = (
            "attempt_number",
            "session_name",
            "claim_token",
            "started_at",
            "ended_at",
            "outcome",
            "error",
        )
        read_only_fields = fields


class TaskWithHistorySerializer(TaskSerializer):
    """A task with every attempt at it."""

    attempts = AttemptSerializer(many=True)
    depends_on = serializers.PrimaryKeyRelatedField(many=True, read_only=True)

    class Meta(TaskSerializer.Meta):
        fields = (*TaskSerializer.Meta.fields, "depends_on", "attempts")
        read_only_fields = fields


class NewTaskSerializer(StrictSerializer):
    """What shall be done."""

    idempotency_key = StrictCharField(
        max_length=255, help_text="Names the task: the same key with the same body is the same task."
    )
    task_type = StrictCharField(max_length=100)
    task_data = ObjectField(bytes_most=TASK_DATA_BYTES_MAX, default=dict)
    priority = StrictIntegerField(min_value=-PRIORITY_MOST, max_value=PRIORITY_MOST, default=0)
    lesson_id = serializers.UUIDField(required=False, allow_null=True, default=None)
    target_session = SessionNameField(required=False, allow_null=True, default=None)
    required_capabilities = capabilities(required=False, default=list)
    required_tier = serializers.ChoiceField(
        choices=Tier.choices, required=False, allow_null=True, default=None
    )
    depends_on = serializers.ListField(
        child=serializers.UUIDField(), max_length=DEPENDENCIES_MOST, required=False, default=list
    )
    on_dependency_failure = serializers.ChoiceField(
        choices=[policy.value for policy in DependencyPolicy],
        default="fail",
        help_text="What a failed dependency does: fail this task too, or release it.",
    )
    run_after = MomentField(required=False, allow_null=True, default=None)
    max_retries = StrictIntegerField(min_value=0, max_value=RETRIES_MOST, default=3)
    claim_ttl_s = StrictFloatField(
        min_value=0.1, max_value=CLAIM_TTL_MOST_S, required=False, allow_null=True, default=None
    )
    timeout_s = StrictFloatField(
        min_value=0.1, max_value=TIMEOUT_MOST_S, required=False, allow_null=True, default=None
    )


class ChangedTaskSerializer(StrictSerializer):
    """What may be changed while a task is pending."""

    priority = StrictIntegerField(min_value=-PRIORITY_MOST, max_value=PRIORITY_MOST, required=False)
    target_session = SessionNameField(required=False, allow_null=True)
    max_retries = StrictIntegerField(min_value=0, max_value=RETRIES_MOST, required=False)
    run_after = MomentField(required=False)


class ClaimSerializer(StrictSerializer):
    """Which session wants how many tasks."""

    session_name = SessionNameField()
    lease_token = StrictIntegerField(min_value=1, max_value=INTEGER_MOST)
    max = StrictIntegerField(min_value=1, max_value=CLAIM_MOST, default=1)
    wait_s = StrictFloatField(min_value=0, max_value=CLAIM_WAIT_MOST_S, default=0)
    task_types = serializers.ListField(child=StrictCharField(max_length=100), max_length=100, default=list)


class ClaimedTaskSerializer(serializers.Serializer):
    """A granted claim. `claim_token` only grows; whoever holds a newer one wins."""

    id = serializers.UUIDField()
    task_type = serializers.CharField()
    task_data = ObjectField(bytes_most=TASK_DATA_BYTES_MAX, allow_null=True)
    attempt = serializers.IntegerField()
    claim_token = serializers.IntegerField()
    claim_expires_at = serializers.DateTimeField()
    lesson_id = serializers.UUIDField(allow_null=True)
    timeout_s = serializers.FloatField(allow_null=True)
    retry_count = serializers.IntegerField()


class ClaimAnswerSerializer(serializers.Serializer):
    """The granted claims; an empty list comes with the reason."""

    tasks = ClaimedTaskSerializer(many=True)
    reason = serializers.CharField(required=False)


class TokenSerializer(StrictSerializer):
    """The claim."""

    claim_token = StrictIntegerField(min_value=1, max_value=INTEGER_MOST)


class TaskProgressSerializer(StrictSerializer):
    """How far it is."""

    percent = StrictIntegerField(min_value=0, max_value=100)
    note = StrictCharField(max_length=255, allow_blank=True, default="")


class RenewTaskSerializer(TokenSerializer):
    """The claim, and how far it is."""

    progress = TaskProgressSerializer(required=False, allow_null=True)


class CompleteSerializer(TokenSerializer):
    """The claim and the result."""

    result = AnyJSONField(bytes_most=RESULT_BYTES_MAX, required=False, allow_null=True, default=None)


class CompletionSerializer(CompleteSerializer):
    """One of many completions."""

    id = serializers.UUIDField()


class CompletionsSerializer(StrictSerializer):
    """Many completions."""

    completions = serializers.ListField(child=serializers.JSONField(), allow_empty=True)


class FailSerializer(TokenSerializer):
    """The claim and what went wrong."""

    error_message = StrictCharField(max_length=ERROR_MESSAGE_MAX, allow_blank=True)
    retryable = StrictBooleanField(default=True)


class TaskReasonSerializer(StrictSerializer):
    """Why."""

    reason = StrictCharField(required=False, allow_blank=True, max_length=500, default="")


class TaskChangeSerializer(serializers.Serializer):
    """A task after a command."""

    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=TaskStatus.choices)
    retry_count = serializers.IntegerField()
    claim_token = serializers.IntegerField()
    claim_expires_at = serializers.DateTimeField(allow_null=True)
    run_after = serializers.DateTimeField(allow_null=True)


class ExplanationSerializer(serializers.Serializer):
    """Why a task is or is not assigned; more members than these, as the rules have more to say."""

    state = serializers.CharField(required=False)
    reason = serializers.CharField(required=False)


class TaskFilter(django_filters.FilterSet):
    """Which tasks."""

    status = choices_filter(TaskStatus)
    task_type = django_filters.CharFilter()
    lesson_id = django_filters.UUIDFilter(field_name="lesson_id")
    claimed_by = django_filters.CharFilter(
        field_name="claimed_by__session_name", help_text="A session's name."
    )
    priority_min = django_filters.NumberFilter(
        field_name="priority", lookup_expr="gte", min_value=-(2**31), max_value=2**31 - 1
    )
    created_after = django_filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gt")

    class Meta:
        model = DistributedTask
        fields: tuple[str, ...] = ()


class Tasks(CoordinationEndpoint):
    """All tasks."""

    scopes = {"GET": AGENTS, "POST": AGENTS}

    @describes(
        tag=TAG,
        summary="List tasks",
        answers={200: page_of(TaskSerializer)},
        parameters=list_parameters(TaskFilter, ORDERINGS),
        reads_coordination=True,
        operation_id="list_tasks",
    )
    def get(self, request: Request) -> Response:
        """One page."""
        known = access.tasks(self.caller).select_related("claimed_by", "target_session")
        rows = filtered(TaskFilter, request.query_params, known)
        revision = self.read_index()
        found = page(request, rows, orderings=ORDERINGS)
        return self.answer(found.as_json(TaskSerializer(found.rows, many=True).data), revision=revision)

    @describes(
        tag=TAG,
        summary="Enqueue a task, or a list of them",
        about="A known idempotency_key with the same body answers 200 and the task there is; with another body 409. "
        "A list answers 200 with one `{status, …}` each, in order; there `state` is the task's status.",
        request=one_or_many(NewTaskSerializer),
        answers={201: TaskSerializer, 200: one_or_lines(TaskSerializer)},
        errors=(409,),
        operation_id="enqueue_task",
    )
    def post(self, request: Request) -> Response:
        """201 the task, 200 where it was there, 200 for a list."""
        self.only()
        items = self.items()
        if items is not None:
            return self._post_many(items)
        wish = self.body(NewTaskSerializer)
        try:
            enqueued = services.enqueue(_new(wish), actor=self.caller.actor, request_id=self.command_id)
        except NotFound as error:
            raise _missing(error, ("body",)) from error
        status = 201 if enqueued.is_new else 200
        return self.answer(TaskSerializer(enqueued.task).data, revision=enqueued.revision, status=status)

    def _post_many(self, items: list[Any]) -> Response:
        good, bad = self.check_items(items, NewTaskSerializer)
        answers = (
            services.enqueue_many(
                [_new(wish) for wish in good.values()], actor=self.caller.actor, request_id=self.command_id
            )
            if good
            else []
        )
        done = {place: _line(place, answer) for place, answer in zip(good, answers, strict=True)}
        return self.answer(in_order(done, bad), revision=_last(answers))


class Task(CoordinationEndpoint):
    """One task."""

    scopes = {"GET": AGENTS, "PATCH": ("admin",), "DELETE": ("admin",)}

    @describes(
        tag=TAG,
        summary="One task with its attempts",
        answers={200: TaskWithHistorySerializer},
        errors=(404,),
        reads_coordination=True,
        operation_id="get_task",
    )
    def get(self, request: Request, task_id: uuid.UUID) -> Response:
        """The task."""
        self.only("consistency", "min_index")
        revision = self.read_index()
        return self.answer(TaskWithHistorySerializer(selectors.task(task_id)).data, revision=revision)

    @describes(
        tag=TAG,
        summary="Change a pending task",
        request=ChangedTaskSerializer,
        answers={200: TaskChangeSerializer},
        errors=(404, 409),
        operation_id="update_task",
    )
    def patch(self, request: Request, task_id: uuid.UUID) -> Response:
        """The task after the change."""
        self.only()
        change = self.body(ChangedTaskSerializer)
        if change.get("target_session", "") is None:
            change["target_session"] = ""
        selectors.task(task_id)
        done = services.update_task(task_id, actor=self.caller.actor, request_id=self.command_id, **change)
        return self.answer(task_change(done), revision=done.revision)

    @describes(
        tag=TAG,
        summary="Delete a pending or final task",
        answers={204: None},
        errors=(404, 409),
        operation_id="delete_task",
    )
    def delete(self, request: Request, task_id: uuid.UUID) -> Response:
        """Nothing."""
        self.only()
        selectors.task(task_id)
        revision = services.delete_task(task_id, actor=self.caller.actor, request_id=self.command_id)
        return self.answer(None, revision=revision or self.index_of_rows(), status=204)


class Claim(CoordinationEndpoint):
    """Out of the queue."""

    scopes = {"POST": AGENTS}

    @describes(
        tag=TAG,
        summary="Claim tasks",
        about="The best tasks for this session, each given to exactly one; waits up to `wait_s` for the first.",
        request=ClaimSerializer,
        answers={200: ClaimAnswerSerializer},
        errors=(404, 409),
        operation_id="claim_tasks",
    )
    def post(self, request: Request) -> Response:
        """The claims."""
        self.only()
        wish = self.body(ClaimSerializer)
        claimed = services.claim(
            wish["session_name"],
            wish["lease_token"],
            actor=self.caller.actor,
            max_tasks=wish["max"],
            task_types=tuple(wish["task_types"]),
            wait_s=wish["wait_s"],
            request_id=self.command_id,
        )
        return self.answer(claim_answer(claimed), revision=claimed.revision)


class Start(CoordinationEndpoint):
    """Work begins."""

    scopes = {"POST": AGENTS}

    @describes(
        tag=TAG,
        summary="Say that work has begun",
        request=TokenSerializer,
        answers={200: TaskChangeSerializer},
        errors=(404, 412),
        operation_id="start_task",
    )
    def post(self, request: Request, task_id: uuid.UUID) -> Response:
        """The task."""
        self.only()
        wish = self.body(TokenSerializer)
        done = services.start(
            task_id, wish["claim_token"], actor=self.caller.actor, request_id=self.command_id
        )
        return self.answer(task_change(done), revision=done.revision)


class Renew(CoordinationEndpoint):
    """Work goes on."""

    scopes = {"POST": AGENTS}

    @describes(
        tag=TAG,
        summary="Prolong a claim",
        request=RenewTaskSerializer,
        answers={200: TaskChangeSerializer},
        errors=(404, 412),
        operation_id="renew_task",
    )
    def post(self, request: Request, task_id: uuid.UUID) -> Response:
        """The task with its new claim_expires_at."""
        self.only()
        wish = self.body(RenewTaskSerializer)
        progress = wish.get("progress") or {}
        done = services.renew(
            task_id,
            wish["claim_token"],
            actor=self.caller.actor,
            percent=progress.get("percent"),
            note=progress.get("note", ""),
            request_id=self.command_id,
        )
        return self.answer(task_change(done), revision=done.revision)


class Complete(CoordinationEndpoint):
    """Work is done."""

    scopes = {"POST": AGENTS}

    @describes(
        tag=TAG,
        summary="Hand in a result",
        about="A token that is no longer the current one is 412 and changes nothing; the same completion again is 200.",
        request=CompleteSerializer,
        answers={200: TaskChangeSerializer},
        errors=(404, 412),
        operation_id="complete_task",
    )
    def post(self, request: Request, task_id: uuid.UUID) -> Response:
        """The task."""
        self.only()
        wish = self.body(CompleteSerializer)
        done = services.complete(
            task_id, wish["claim_token"], wish["result"], actor=self.caller.actor, request_id=self.command_id
        )
        return self.answer(task_change(done), revision=done.revision)


class Completions(CoordinationEndpoint):
    """Much work is done."""

    scopes = {"POST": AGENTS}

    @describes(
        tag=TAG,
        summary="Hand in many results",
        request=CompletionsSerializer,
        answers={200: BatchLineSerializer(many=True)},
        operation_id="complete_tasks",
    )
    def post(self, request: Request) -> Response:
        """One `{status}` each, in order."""
        self.only()
        items = self.body(CompletionsSerializer)["completions"]
        if len(items) > BATCH_LIMIT:
            raise too_large("The batch", f"{BATCH_LIMIT:,} items")
        good, bad = self.check_items(items, CompletionSerializer)
        wishes = [
            services.Completion(wish["id"], wish["claim_token"], wish["result"]) for wish in good.values()
        ]
        answers = (
            services.complete_many(wishes, actor=self.caller.actor, request_id=self.command_id)
            if wishes
            else []
        )
        lines = completion_lines(wishes, answers)
        done = dict(zip(good, lines, strict=True))
        return self.answer(in_order(done, bad), revision=_last(answers))


class Fail(CoordinationEndpoint):
    """Work went wrong."""

    scopes = {"POST": AGENTS}

    @describes(
        tag=TAG,
        summary="Report a failure",
        about="Pending again after a back-off, or failed for good after the last retry or where it is not retryable.",
        request=FailSerializer,
        answers={200: TaskChangeSerializer},
        errors=(404, 412),
        operation_id="fail_task",
    )
    def post(self, request: Request, task_id: uuid.UUID) -> Response:
        """The task: its status, retry_count and run_after."""
        self.only()
        wish = self.body(FailSerializer)
        done = services.fail(
            task_id,
            wish["claim_token"],
            wish["error_message"],
            actor=self.caller.actor,
            retryable=wish["retryable"],
            request_id=self.command_id,
        )
        return self.answer(task_change(done), revision=done.revision)


class Cancel(CoordinationEndpoint):
    """An operator ends it."""

    scopes = {"POST": ("admin",)}

    @describes(
        tag=TAG,
        summary="Cancel a task",
        about="Its holder is told with the next heartbeat; its token is void.",
        request=TaskReasonSerializer,
        answers={200: TaskChangeSerializer},
        errors=(404, 409),
        operation_id="cancel_task",
    )
    def post(self, request: Request, task_id: uuid.UUID) -> Response:
        """The task."""
        self.only()
        reason = self.body(TaskReasonSerializer)["reason"] if request.data else ""
        done = services.cancel(task_id, actor=self.caller.actor, reason=reason, request_id=self.command_id)
        return self.answer(task_change(done), revision=done.revision)


class Retry(CoordinationEndpoint):
    """An operator gives it another chance."""

    scopes = {"POST": ("admin",)}

    @describes(
        tag=TAG,
        summary="Queue a failed or cancelled task again",
        about="Its retries are counted anew.",
        request=TaskReasonSerializer,
        answers={200: TaskChangeSerializer},
        errors=(404, 409),
        operation_id="retry_task",
    )
    def post(self, request: Request, task_id: uuid.UUID) -> Response:
        """The task."""
        self.only()
        if request.data:
            self.body(TaskReasonSerializer)
        done = services.retry(task_id, actor=self.caller.actor, request_id=self.command_id)
        return self.answer(task_change(done), revision=done.revision)


class Explain(CoordinationEndpoint):
    """Why a task is or is not assigned."""

    scopes = {"GET": AGENTS}

    @describes(
        tag=TAG,
        summary="Why a task is (not) assigned",
        answers={200: ExplanationSerializer},
        errors=(404,),
        operation_id="explain_task",
    )
    def get(self, request: Request, task_id: uuid.UUID) -> Response:
        """The checks of the task, and how each session scores for it."""
        self.only()
        selectors.task(task_id)
        explained = services.explain_task(task_id) or {"state": "final", "reason": "It is not live any more."}
        return self.answer(explained, revision=self.index_of_rows())


# --- shared with the hot routes ------------------------------------------------------------------


def claim_answer(claimed: services.ClaimedTasks) -> dict[str, Any]:
    """The body that answers a claim."""
    tasks = [
        {
            "id": task.id,
            "task_type": task.task_type,
            "task_data": task.task_data,
            "attempt": task.attempt,
            "claim_token": task.claim_token,
            "claim_expires_at": task.claim_expires_at,
            "lesson_id": task.lesson_id,
            "timeout_s": task.timeout_s,
            "retry_count": task.retry_count,
        }
        for task in claimed.tasks
    ]
    return {"tasks": tasks} if tasks else {"tasks": [], "reason": claimed.reason}


def task_change(done: services.TaskChange) -> dict[str, Any]:
    """The body that answers a command about one task."""
    return {
        "id": done.task_id,
        "status": done.status,
        "retry_count": done.retry_count,
        "claim_token": done.claim_token,
        "claim_expires_at": done.claim_expires_at,
        "run_after": done.run_after,
    }


def completion_lines(
    wishes: list[services.Completion], answers: list[services.TaskChange | CoordinationError]
) -> list[dict[str, Any]]:
    """One line for each completion."""
    return [
        item(answer if isinstance(answer, Exception) else task_change(answer), id=wish.task_id)
        for wish, answer in zip(wishes, answers, strict=True)
    ]


def _new(wish: Mapping[str, Any]) -> services.NewTask:
    return services.NewTask(
        idempotency_key=wish["idempotency_key"],
        task_type=wish["task_type"],
        task_data=wish["task_data"],
        priority=wish["priority"],
        lesson_id=wish["lesson_id"],
        target_session=wish["target_session"],
        required_capabilities=tuple(wish["required_capabilities"]),
        required_tier=wish["required_tier"] or "",
        depends_on=tuple(wish["depends_on"]),
        on_dependency_failure=wish["on_dependency_failure"],
        run_after=wish["run_after"],
        max_retries=wish["max_retries"],
        claim_ttl_s=wish["claim_ttl_s"],
        timeout_s=wish["timeout_s"],
    )


def _missing(error: NotFound, loc: tuple[str | int, ...]) -> Exception:
    """A body that names something that does not exist is wrong at that place."""
    return invalid((*loc, _REFERENCES[error.kind]), f"There is no {error.kind} {error.name}.")


def _line(place: int, answer: services.Enqueued | CoordinationError) -> dict[str, Any]:
    if isinstance(answer, NotFound):
        return item(_missing(answer, ("body", place)))
    if isinstance(answer, CoordinationError):
        return item(answer)
    return item(TaskSerializer(answer.task).data, 201 if answer.is_new else 200)


def _last(answers: list[Any]) -> int:
    """The newest index that any line of a batch is about."""
    return max((getattr(answer, "revision", 0) for answer in answers), default=0)
