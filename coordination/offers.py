"""A task's row as the machine is offered it: shared by enqueue, retry and the feeder."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from coordination.machine.commands import TaskEnqueue, TaskSpec
from coordination.machine.kinds import DependencyPolicy
from coordination.models import DistributedTask

FINAL_OTHERWISE = ("failed", "cancelled")


def spec_of(task: DistributedTask) -> TaskSpec:
    """What the machine must know of a task. `target_session` must have been selected with the row."""
    return TaskSpec(
        task_type=task.task_type,
        priority=task.priority,
        lesson_id=str(task.lesson_id or ""),
        target_session=task.target_session.session_name if task.target_session else "",
        tier=task.required_tier,
        required_capabilities=tuple(task.required_capabilities),
        max_retries=task.max_retries,
        claim_ttl_ms=_in_ms(task.claim_ttl_s),
        timeout_ms=_in_ms(task.timeout_s),
        on_dependency_failure=DependencyPolicy(task.on_dependency_failure),
    )


def offer_of(
    task: DistributedTask,
    dependencies: Sequence[tuple[UUID, str]],
    *,
    request_id: bytes,
    actor: str,
    now: datetime | None = None,
    seen_revision: int = 0,
) -> TaskEnqueue:
    """The command that offers a row. `dependencies` are ids with the status their rows have."""
    now = now or datetime.now(UTC)
    delay_ms = 0 if task.run_after is None else max(0, round((task.run_after - now).total_seconds() * 1000))
    return TaskEnqueue(
        request_id=request_id,
        actor=actor,
        task_id=str(task.pk),
        spec=spec_of(task),
        depends_on=tuple(str(pk) for pk, _ in dependencies),
        done_depends=tuple(str(pk) for pk, status in dependencies if status == "completed"),
        failed_depends=tuple(str(pk) for pk, status in dependencies if status in FINAL_OTHERWISE),
        delay_ms=delay_ms,
        seen_revision=seen_revision,
    )


def dependencies_of(task_ids: Iterable[UUID]) -> Mapping[UUID, list[tuple[UUID, str]]]:
    """For each task, the tasks it depends on with the status their rows have, by one query."""
    found: dict[UUID, list[tuple[UUID, str]]] = {task_id: [] for task_id in task_ids}
    through = DistributedTask.depends_on.through.objects
    rows = through.filter(from_distributedtask_id__in=list(found)).values_list(
        "from_distributedtask_id", "to_distributedtask_id", "to_distributedtask__status"
    )
    for task_id, dependency_id, status in rows.order_by("id"):
        found[task_id].append((dependency_id, status))
    return found


def _in_ms(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, round(seconds * 1000))
