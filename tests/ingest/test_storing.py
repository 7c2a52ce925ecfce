from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from asgiref.sync import sync_to_async
from uuid_utils.compat import uuid7

from gaia_site.hot import HotResponse
from gaia_site.problems import Problem
from tests.ingest.senders import app_key, metric, sent
from usability.ingest.endpoint import Ingest
from usability.models import (
    AppHealthCount,
    Classroom,
    Enrollment,
    HelpRequest,
    School,
    Student,
    UsabilityMetric,
)
from usability.querysets import moment_of

pytestmark = pytest.mark.django_db(transaction=True)


@sync_to_async
def rows() -> list[UsabilityMetric]:
    return list(UsabilityMetric.objects.order_by("timestamp", "id"))


async def test_a_metric_that_was_acknowledged_is_a_row_with_every_field(ingest: Ingest) -> None:
    at = dt.datetime.now(tz=dt.UTC) - dt.timedelta(seconds=30)
    details = {"item": "fractions/7", "correct": True, "attempt": 2, "sdk": "1.2.0"}

    answer = await sent(
        ingest, metric(metric_type="answer", metric_value=1, timestamp=at.isoformat(), metadata=details)
    )

    assert (answer.status, answer.body) == (202, {"accepted": 1, "rejected": [], "duplicate": False})
    (row,) = await rows()
    assert (row.student_id, row.app_name, row.metric_type, row.metric_value) == (
        "stu-0001",
        "maths",
        "answer",
        1,
    )
    assert (row.session_id, row.metadata, row.timestamp) == ("sitting-1", details, at)
    assert abs(row.received_at - dt.datetime.now(tz=dt.UTC)) < dt.timedelta(seconds=10)
    assert abs(moment_of(row.id) - row.received_at) < dt.timedelta(milliseconds=2)


async def test_a_stored_metric_is_found_by_its_id(ingest: Ingest) -> None:
    await sent(ingest, metric())
    (row,) = await rows()

    found = await sync_to_async(UsabilityMetric.objects.with_id)(row.id)

    assert found.student_id == "stu-0001"


async def test_good_metrics_of_a_mixed_batch_are_kept(ingest: Ingest) -> None:
    answer = await sent(ingest, [metric(), metric(metric_type="nonsense"), metric(student_id="stu-2")])

    assert answer.body["accepted"] == 2
    assert [(r["index"], r["loc"]) for r in answer.body["rejected"]] == [(1, ["body", 1, "metric_type"])]
    assert sorted(row.student_id for row in await rows()) == ["stu-0001", "stu-2"]


async def test_a_batch_keeps_its_order_by_id(ingest: Ingest) -> None:
    moment = dt.datetime.now(tz=dt.UTC).isoformat()
    await sent(ingest, [metric(metric_value=n, timestamp=moment) for n in range(200)])

    assert [row.metric_value for row in await rows()] == list(range(200))


async def test_a_batch_id_seen_before_is_acknowledged_and_not_stored_again(ingest: Ingest) -> None:
    caller = app_key("maths")
    batch = {"batch_id": "b-1", "metrics": [metric(), metric()]}

    first = await sent(ingest, batch, principal=caller)
    second = await sent(ingest, batch, principal=caller)

    assert (first.body["duplicate"], second.body["duplicate"]) == (False, True)
    assert second.body["accepted"] == 2
    assert len(await rows()) == 2


async def test_a_batch_sent_many_times_at_once_is_stored_once(ingest: Ingest, settings) -> None:
    caller = app_key("maths")
    other = Ingest(ingest._buffer._conninfo, None)
    batch = {"batch_id": f"b-{uuid7()}", "metrics": [metric(metric_value=n) for n in range(5)]}

    answers = await asyncio.gather(
        *(sent((ingest, other)[n % 2], batch, principal=caller) for n in range(20))
    )
    await other.close()

    assert sorted(answer.body["duplicate"] for answer in answers) == [False] + [True] * 19
    assert len(await rows()) == 5


async def test_batch_ids_of_two_apps_do_not_meet(ingest: Ingest) -> None:
    for app_name in ("maths", "piano"):
        batch = {"batch_id": "b-1", "metrics": [metric(app_name=app_name)]}
        answer = await sent(ingest, batch, principal=app_key(app_name))
        assert answer.body["duplicate"] is False

    assert len(await rows()) == 2


async def test_a_repeated_idempotency_key_gets_the_first_answer(ingest: Ingest) -> None:
    caller = app_key("maths")
    body = [metric()]

    first = await sent(ingest, body, principal=caller, idempotency_key="once")
    second = await sent(ingest, body, principal=caller, idempotency_key="once")

    assert first.body == second.body
    assert second.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert len(await rows()) == 1


async def test_an_idempotency_key_with_another_body_is_refused(ingest: Ingest) -> None:
    caller = app_key("maths")
    await sent(ingest, [metric()], principal=caller, idempotency_key="once")

    with pytest.raises(Problem) as refused:
        await sent(ingest, [metric(metric_value=9)], principal=caller, idempotency_key="once")

    assert refused.value.slug == "idempotency-mismatch"
    assert len(await rows()) == 1


async def test_validating_stores_nothing_at_all(ingest: Ingest) -> None:
    answer = await sent(ingest, [metric(), metric(metric_value=-1)], query={"validate_only": "1"})

    assert (answer.status, answer.body["accepted"], len(answer.body["rejected"])) == (200, 1, 1)
    assert await rows() == []
    assert not await Student.objects.aexists()


async def test_a_learner_no_roster_knows_is_kept_unassigned(ingest: Ingest) -> None:
    await sent(ingest, metric(student_id="stranger"))

    (row,) = await rows()
    assert row.classroom_id is None
    assert [student.student_id async for student in Student.objects.unassigned()] == ["stranger"]
    assert (await Student.objects.aget()).first_seen_app == "maths"


async def test_a_request_for_help_gets_an_id_that_can_be_asked_about(ingest: Ingest) -> None:
    answer = await sent(ingest, [metric(), metric(metric_type="help_request", metric_value=1)])

    (help_id,) = answer.body["help_requests"]
    asked = await HelpRequest.objects.select_related("alert").aget(id=help_id)
    assert (asked.student_id, asked.app_name, asked.state) == ("stu-0001", "maths", "sent")
    assert (await sync_to_async(UsabilityMetric.objects.with_id)(asked.id)).metric_type == "help_request"


async def test_a_repeated_request_for_help_is_told_the_same_id(ingest: Ingest) -> None:
    caller = app_key("maths")
    batch = {"batch_id": "h-1", "metrics": [metric(metric_type="help_request", metric_value=1)]}

    first = await sent(ingest, batch, principal=caller)
    second = await sent(ingest, batch, principal=caller)

    assert first.body["help_requests"] == second.body["help_requests"]
    assert await HelpRequest.objects.acount() == 1


async def test_requests_that_come_together_share_a_commit_and_each_gets_its_own_answer(
    ingest: Ingest,
) -> None:
    await sent(ingest, metric())
    bodies = [[metric(student_id=f"s-{n}", metric_value=n) for _ in range(n % 4 + 1)] for n in range(40)]

    answers = await asyncio.gather(*(sent(ingest, body) for body in bodies))

    assert [answer.body["accepted"] for answer in answers] == [len(body) for body in bodies]
    assert len(await rows()) == 1 + sum(map(len, bodies))


async def test_an_idempotency_key_stands_for_one_body_whatever_batch_id_is_in_it(ingest: Ingest) -> None:
    caller = app_key()

    async def call(batch_id: str, value: int, key: str) -> HotResponse:
        body = {"batch_id": batch_id, "metrics": [metric(metric_value=value, timestamp=None)]}
        return await sent(ingest, body, principal=caller, idempotency_key=key)

    first = await call("b-1", 1, "k-1")
    again = await call("b-1", 1, "k-1")
    known_batch = [await call("b-1", 1, "k-2") for _ in range(2)]
    with pytest.raises(Problem) as refusal:
        await call("b-2", 1, "k-1")

    assert (first.headers, first.body["duplicate"]) == ({}, False)
    assert (again.headers, again.body) == ({"Idempotent-Replayed": "true"}, first.body)
    assert [answer.body["duplicate"] for answer in known_batch] == [True, True]
    assert [bool(answer.headers) for answer in known_batch] == [False, True]
    assert refusal.value.slug == "idempotency-mismatch"
    assert len(await rows()) == 1


async def test_an_idempotency_key_is_kept_where_every_metric_was_refused(ingest: Ingest) -> None:
    caller = app_key()
    refused = [metric(metric_type="feeling", timestamp=None)]

    answers = [await sent(ingest, refused, principal=caller, idempotency_key="k") for _ in range(2)]
    with pytest.raises(Problem) as refusal:
        await sent(ingest, [metric()], principal=caller, idempotency_key="k")

    assert answers[0].body == answers[1].body
    assert [bool(answer.headers) for answer in answers] == [False, True]
    assert refusal.value.slug == "idempotency-mismatch"
    assert await rows() == []


async def test_a_batch_that_is_sent_again_does_not_count_twice_in_the_health_of_its_app(
    ingest: Ingest,
) -> None:
    caller = app_key("maths")
    body = {
        "batch_id": "b-1",
        "metrics": [metric(metric_type="dead_click"), metric(metric_type="feeling")],
    }

    for _ in range(3):
        await sent(ingest, body, principal=caller)
    await ingest.close()

    counts = await sync_to_async(lambda: dict(AppHealthCount.objects.values_list("measure", "count")))()
    assert counts == {"accepted": 1, "dead_click": 3, "rejected": 1}


async def test_a_learner_keeps_the_class_when_the_roster_is_forgotten_under_way(ingest: Ingest) -> None:
    def enroll() -> Classroom:
        school = School.objects.create(name="A school")
        room = Classroom.objects.create(school=school, name="7b", app_names=["maths"])
        student = Student.objects.create(student_id="ada", display_name="Ada")
        Enrollment.objects.create(student=student, classroom=room)
        return room

    room = await sync_to_async(enroll)()
    await sent(ingest, metric(student_id="ada"))

    # One of the two learners must be looked up; while that runs, another request lets all be forgotten.
    under_way = asyncio.create_task(sent(ingest, [metric(student_id="ada"), metric(student_id="nobody-yet")]))
    await asyncio.sleep(0)
    ingest._roster.unknown([], ingest._roster._begun_s + 1_000)
    await under_way

    assert {row.classroom_id for row in await rows() if row.student_id == "ada"} == {room.pk}
