"""What the errors of the coordination half mean to a client, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordination.errors import InvalidError, NotAvailable, NotFound, OutcomeUnknown, RejectedError, Stored
from coordination.machine.kinds import RejectionCode
from gaia_site.problems import KINDS, FieldError, Problem

INDEX_HEADER = "X-Raft-Index"
STALE_HEADER = "X-Raft-Stale"
"""As a node's own answers have it."""

_ABOUT_THE_BODY = {
    RejectionCode.UNKNOWN_DEPENDENCY: ("body", "depends_on"),
    RejectionCode.DEPENDENCY_CYCLE: ("body", "depends_on"),
    RejectionCode.UNDECODABLE: ("body",),
    RejectionCode.VALIDATION: ("body",),
}


def problem_of(error: Exception) -> Exception:
    """The problem that `error` is to a client; other errors come back as they are."""
    match error:
        case RejectedError():
            return _rejected(error)
        case InvalidError():
            loc = ("body", *error.field.split("."))
            return Problem(
                "validation-error", f"{error.field}: {error.detail}", errors=[FieldError(loc, error.detail)]
            )
        case NotFound():
            return Problem("not-found", f"There is no {error.kind} {error.name[:300]}, or it is not yours.")
        case NotAvailable():
            return Problem(
                "no-leader", f"Nothing was changed: {error.detail}.", retry_after_s=error.retry_after_s
            )
        case Stored():
            what = (
                "The task is stored and waits"
                if len(error.task_ids) == 1
                else "The tasks are stored and wait"
            )
            return Problem(
                "no-leader",
                f"{what} to be queued, which the next leader does by itself: {error.detail}. "
                "The same again, with the same idempotency_key, is safe.",
                extra={"outcome": "stored", "task_ids": [str(task_id) for task_id in error.task_ids]},
                retry_after_s=error.retry_after_s,
            )
        case OutcomeUnknown():
            return Problem(
                "overloaded",
                f"It is not known whether this was done: {error.detail}. Repeat it with the same Idempotency-Key.",
                extra={"outcome": "unknown"},
                retry_after_s=error.retry_after_s,
            )
        case _:
            return error


def _rejected(error: RejectedError) -> Problem:
    headers = {INDEX_HEADER: str(error.revision)} if error.revision else {}
    loc = _ABOUT_THE_BODY.get(RejectionCode(error.code))
    if loc is not None:
        errors = [FieldError(loc, error.detail)]
        return Problem("validation-error", error.detail, errors=errors, extra=error.data, headers=headers)
    slug = error.code if error.code in KINDS else "conflict"
    return Problem(slug, _sentence(error.detail), extra=error.data, headers=headers)


def _sentence(detail: str) -> str:
    return detail[:1].upper() + detail[1:].rstrip(".") + "." if detail else ""


def item(answer: Mapping[str, Any] | Exception, status: int = 200, **named: Any) -> dict[str, Any]:
    """One line of a batch's answer: `status` is the code the item alone would have got.

    An object that has a status of its own shows it as `state`; a refusal is its problem.
    """
    if isinstance(answer, Exception):
        problem = problem_of(answer)
        if not isinstance(problem, Problem):
            raise problem
        return {**named, **problem.as_json()}
    state = {"state": answer["status"]} if "status" in answer else {}
    return {**named, **answer, **state, "status": status}
