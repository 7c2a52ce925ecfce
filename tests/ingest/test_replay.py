"""Recordings played through the ingest and imported: rows, intervals, repeats, and what detection makes of them."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command

from tests.detection.test_evaluation import SHARED, plain_groups
from tests.ingest.senders import app_key, sent
from usability.detection import classroom
from usability.detection.classroom import EpisodeOpened
from usability.detection.kinds import SignalFamily
from usability.importing import import_metrics
from usability.ingest.endpoint import Ingest
from usability.ingest.rows import rows_of_students
from usability.ingest.stream import observation_of
from usability.models import Classroom, Enrollment, School, Student, UsabilityMetric
from usability.recordings import RecordingError
from usability.replay import (
    ATTEMPTS_MOST,
    Answer,
    ReplayRefusedError,
    batches,
    load,
    play,
    rfc3339,
    with_students,
)

OURS = Path(__file__).parent.parent / "data" / "sequences.txt"
T0 = 1_760_000_000_000


def recording(path: Path = OURS, **options: Any) -> list[Any]:
    return load(path, **{"app_name": "tutor", "every_s": 20.0, "students": None} | options)


def observations(student_ids: list[str]) -> list[Any]:
    return [
        observation_of(row)
        for row in rows_of_students(
            student_ids,
            since=dt.datetime.fromtimestamp(0, dt.UTC),
            until=dt.datetime.now(tz=dt.UTC) + dt.timedelta(days=1),
        )
    ]


# What a recording becomes


def test_every_attempt_is_an_answer_in_order_of_time():
    timed = recording()

    assert len(timed) == 14 + 24 + 22 + 10 + 18 + 1
    assert [at_ms for at_ms, _ in timed] == sorted(at_ms for at_ms, _ in timed)
    assert timed[0] == (
        20_000,
        {
            "student_id": "student-0",
            "app_name": "tutor",
            "metric_type": "answer",
            "metric_value": 1,
            "metadata": {"skill": "skill-1", "correct": True, "item": "item-520"},
        },
    )
    assert (
        "item" not in next(metric for _, metric in timed if metric["student_id"] == "student-2")["metadata"]
    )
    assert {metric["student_id"] for _, metric in recording(students=2)} == {"student-0", "student-1"}


def test_other_pupils_can_play_a_recording():
    played = with_students(recording(), ["ann", "ben"])

    assert Counter(metric["student_id"] for _, metric in played) == {"ann": 14, "ben": 24}


@pytest.mark.parametrize("speed", [1.0, 7.0, 1000.0])
def test_intervals_are_divided_by_the_speed_and_begin_now(speed):
    timed = recording()

    sent_out = [(due, metric) for due, batch in batches(timed, speed=speed, start_ms=T0) for metric in batch]

    assert [metric["timestamp"] for _, metric in sent_out] == [
        rfc3339(T0 + round((at_ms - 20_000) / speed)) for at_ms, _ in timed
    ]
    for due, metric in sent_out:
        happened = dt.datetime.fromisoformat(metric["timestamp"]).timestamp() * 1000
        assert -1 <= due - happened <= 1000


def test_batches_are_bounded():
    timed = [(index, {"student_id": "a"}) for index in range(1200)]

    assert [len(batch) for _, batch in batches(timed, speed=100, start_ms=T0)] == [500, 500, 200]
    assert list(batches([], speed=1, start_ms=T0)) == []


def test_ndjson_is_played_in_order_of_its_times(tmp_path):
    path = tmp_path / "metrics.ndjson"
    lines = [{"student_id": "a", "timestamp": rfc3339(T0 + each)} for each in (500, 0, 250)]
    path.write_text("\n".join(map(json.dumps, lines)))

    assert [at_ms - T0 for at_ms, _ in recording(path)] == [0, 250, 500]


@pytest.mark.parametrize("stamp", [None, "yesterday", "2025-10-09T08:53:20"])
def test_ndjson_without_times_is_refused(tmp_path, stamp):
    path = tmp_path / "metrics.ndjson"
    path.write_text(json.dumps({"student_id": "a", "timestamp": stamp}))

    with pytest.raises(RecordingError, match="expected a"):
        recording(path)


# How it is sent


class Clock:
    def __init__(self) -> None:
        self.now_ms = T0
        self.slept: list[float] = []

    def __call__(self) -> int:
        return self.now_ms

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ms += round(seconds * 1000)


def played(post: Any, **options: Any) -> tuple[Any, Clock]:
    clock = Clock()
    timed = options.pop("timed", recording())
    *_, tally = play(timed, speed=20, post=post, clock_ms=clock, sleep=clock.sleep)
    return tally, clock


def test_a_recording_takes_its_time_divided_by_the_speed():
    tally, clock = played(lambda body: Answer(202, {"accepted": len(body["metrics"]), "rejected": []}))

    assert (tally.accepted, tally.rejected, tally.retries) == (89, 0, 0)
    assert 23_000 <= clock.now_ms - T0 <= 25_000


def test_a_batch_is_sent_again_under_the_same_id_until_it_is_taken():
    seen: list[str] = []

    def post(body: dict[str, Any]) -> Answer:
        seen.append(body["batch_id"])
        is_third = seen.count(body["batch_id"]) == 3
        return Answer(202, {"accepted": 1, "rejected": [{}]}) if is_third else Answer(503, {}, 0.5)

    tally, clock = played(post, timed=recording()[:3])

    assert set(Counter(seen).values()) == {3}
    assert (tally.retries, tally.rejected) == (2 * tally.batches, tally.batches)
    assert clock.slept.count(0.5) == tally.retries


@pytest.mark.parametrize(("status", "times"), [(403, 1), (503, ATTEMPTS_MOST)])
def test_a_refusal_ends_the_replay_at_once_and_overload_in_the_end(status, times):
    seen = []

    def post(body: dict[str, Any]) -> Answer:
        seen.append(body)
        return Answer(status, {"detail": "no"}, 60.0)

    with pytest.raises(ReplayRefusedError, match=f"{status}: no"):
        played(post)
    assert len(seen) == times


# Through the ingest


@pytest.mark.django_db(transaction=True)
async def test_a_slice_played_through_the_api_is_stored_with_its_intervals(ingest: Ingest) -> None:
    loop, key = asyncio.get_running_loop(), app_key()

    def post(body: dict[str, Any]) -> Answer:
        answer = asyncio.run_coroutine_threadsafe(sent(ingest, body, principal=key), loop).result(20)
        return Answer(answer.status, answer.body)

    timed = recording(students=3)
    *_, tally = await asyncio.to_thread(
        list,
        play(timed, speed=400, post=post, clock_ms=lambda: time.time_ns() // 1_000_000, sleep=time.sleep),
    )

    found = await sync_to_async(observations)(["student-0", "student-1", "student-2"])
    assert tally.accepted == len(found) == 60
    for student, skills, marks in plain_groups(OURS, 3):
        own = [each for each in found if each.student_id == f"student-{student}"]
        assert [each.skill for each in own] == [f"skill-{skill}" for skill in skills]
        assert [each.correct for each in own] == marks
        gaps = [later.at_ms - earlier.at_ms for earlier, later in pairwise(own)]
        # Batches are corrected by their own receipts, which differ by some milliseconds.
        assert sum(gaps) == pytest.approx(50 * len(gaps), abs=150)


# Imported


def expected_wheel_spinning(path: Path, students: int) -> set[tuple[str, str]]:
    """By the definition alone: at least ten tries, and no three right in a row before the tenth."""
    found = set()
    for student, skills, marks in plain_groups(path, students):
        for skill in set(skills):
            own = "".join(
                "+" if mark else "-" for each, mark in zip(skills, marks, strict=True) if each == skill
            )
            if len(own) >= 10 and "+++" not in own[:10]:
                found.add((f"student-{student}", f"skill-{skill}"))
    return found


def spinning_found(student_ids: list[str]) -> set[tuple[str, str]]:
    from usability.detection.practice import NO_NORMS, NO_PRACTICE
    from usability.detection.registry import BY_NAME
    from usability.detection.skill_detector import Standing

    detector, found = BY_NAME["wheel_spinning"], set()
    params, states, days = detector.Params(), {}, {}
    for observation in observations(student_ids):
        student, skill = observation.student_id, observation.skill
        days[student] = days.get(student, NO_PRACTICE).after(
            skill, correct=bool(observation.correct), norms=NO_NORMS
        )
        states[student], signals = detector.advance_practice(
            states.get(student) or detector.start(),
            observation,
            params,
            Standing(skill, days[student], NO_NORMS),
        )
        found |= {(student, signal.skill) for signal in signals if signal.raised}
    return found


@pytest.mark.parametrize(
    ("path", "students"),
    [
        (OURS, 6),
        pytest.param(
            SHARED,
            25,
            marks=pytest.mark.skipif(not SHARED.exists(), reason="the shared development data is not here"),
        ),
    ],
    ids=["ours", "shared"],
)
@pytest.mark.usefixtures("stored")
def test_imported_sequences_give_the_rows_and_signals_counted_by_hand(path, students):
    timed = [(T0 + at_ms, metric) for at_ms, metric in recording(path, students=students)]

    *_, imported = import_metrics(timed)

    assert (imported.stored, imported.rejected) == (len(timed), 0)
    assert UsabilityMetric.objects.count() == len(timed)
    assert spinning_found(sorted({metric["student_id"] for _, metric in timed})) == expected_wheel_spinning(
        path, students
    )


@pytest.mark.usefixtures("stored")
def test_imported_rows_keep_their_times_and_give_the_episodes_of_a_hand_count():
    list(import_metrics([(T0 + at_ms, metric) for at_ms, metric in recording()]))
    rows = observations([f"student-{index}" for index in range(6)])

    _, decisions = classroom.rebuild("room-1", rows, now_ms=T0 + 900_000)

    assert {each.at_ms for each in rows} == {T0 + 20_000 * count for count in range(1, 25)}
    assert all(0 < each.received_ms - each.at_ms <= 1000 for each in rows)
    opened = {
        (each.episode.student_id, each.episode.family)
        for each in decisions
        if isinstance(each, EpisodeOpened)
    }
    # Three wrong in a row: students 1, 3 and 4; seven of ten wrong: student 2. Ten tries at a skill without three
    # right in a row: 1, 2 and 4; most of the first tries wrong: 3.
    assert {student for student, family in opened if family == SignalFamily.ACCURACY} == {
        "student-1",
        "student-2",
        "student-3",
        "student-4",
    }
    assert {student for student, family in opened if family == SignalFamily.PROGRESS} == {
        "student-1",
        "student-2",
        "student-3",
        "student-4",
    }


@pytest.mark.usefixtures("stored")
def test_what_the_door_would_refuse_is_not_imported_and_is_named():
    good = {"student_id": "a", "app_name": "maths", "metric_type": "click", "metric_value": 1}
    bad = good | {"student_id": "Ann Smith", "metadata": {"text": "hello"}}

    *_, imported = import_metrics([(T0, good), (T0 + 1, bad)])

    assert (imported.stored, imported.rejected) == (1, 1)
    assert len(imported.refusals) == 1


# The command


class Site(ThreadingHTTPServer):
    """Answers like the API to the first of each two tries: overloaded, then accepted."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SiteHandler)
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str] = set()


class SiteHandler(BaseHTTPRequestHandler):
    server: Site

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = [each["batch_id"] for each in self.server.bodies]
        self.server.bodies.append(body)
        self.server.keys.add(self.headers["Authorization"])
        if self.path != "/api/v1/usability/metrics":
            self.reply(404, b"<html>")
        elif body["batch_id"] not in known:
            self.reply(503, b'{"detail": "full"}', "0.01" if known else "soon")
        else:
            self.reply(202, json.dumps({"accepted": len(body["metrics"]), "rejected": []}).encode())

    def reply(self, status: int, body: bytes, retry_after: str = "0") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def site():
    server = Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join(5)
    server.server_close()


def test_the_command_plays_over_http_and_comes_back_when_asked_to(site):
    out = StringIO()
    url = f"http://127.0.0.1:{site.server_port}"

    call_command("replay_metrics", OURS, "--speed", "10000", "--url", url, "--key", "k-1", stdout=out)

    assert "89 metrics accepted, 0 rejected, 1 batches, 1 sent again" in out.getvalue()
    assert site.keys == {"Bearer k-1"}
    assert {each["batch_id"] for each in site.bodies} == {site.bodies[0]["batch_id"]}


def test_the_command_ends_with_what_the_site_said(site):
    url = f"http://127.0.0.1:{site.server_port}/elsewhere"

    with pytest.raises(CommandError, match="404: the answer is not a JSON object"):
        call_command("replay_metrics", OURS, "--speed", "10000", "--url", url, "--key", "k")


def test_the_command_says_that_nobody_answers(monkeypatch, site):
    monkeypatch.setattr("usability.replay.RETRY_MOST_S", 0.001)
    site.shutdown()
    site.server_close()
    url = f"http://127.0.0.1:{site.server_port}"

    with pytest.raises(CommandError, match="503: no answer from"):
        call_command("replay_metrics", OURS, "--speed", "10000", "--url", url, "--key", "k")


@pytest.mark.usefixtures("stored")
def test_the_command_imports_into_a_class():
    school = School.objects.create(name="A school")
    room = Classroom.objects.create(school=school, name="7b")
    for name in ("pupil-a", "pupil-b"):
        Enrollment.objects.create(student=Student.objects.create(student_id=name), classroom=room)
    out = StringIO()

    call_command("replay_metrics", OURS, "--import", "--class", str(room.id), stdout=out)

    assert "38 metrics stored at their original times, 0 rejected" in out.getvalue()
    assert set(UsabilityMetric.objects.values_list("student_id", flat=True)) == {"pupil-a", "pupil-b"}


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--speed", "0"], "must be over 0"),
        (["--every", "0"], "must be over 0"),
        (["--class", "7b"], "is not the id of a class"),
        (["--class", "018f0000-0000-7000-8000-000000000000"], "no pupil is enrolled"),
        (["--url", "http://127.0.0.1:9"], "start the system"),
    ],
)
def test_the_command_says_what_is_wrong(arguments, words):
    with pytest.raises(CommandError, match=words):
        call_command("replay_metrics", OURS, *arguments)


@pytest.mark.parametrize("suffix", [".txt", ".gz"])
@pytest.mark.parametrize(
    "command", [["replay_metrics"], ["replay_metrics", "--import"], ["evaluate_detectors"]]
)
def test_a_file_that_is_no_text_is_a_sentence_and_no_traceback(
    tmp_path: Path, command: list[str], suffix: str
) -> None:
    path = tmp_path / f"picture{suffix}"
    whole = gzip.compress(OURS.read_bytes())
    # Not UTF-8, or gzip that was cut off.
    path.write_bytes(whole[: len(whole) // 2])
    more = ["--scores", str(tmp_path / "scores.csv")] if command == ["evaluate_detectors"] else []

    with pytest.raises(CommandError, match="UTF-8"):
        call_command(command[0], str(path), *command[1:], *more)
