"""The simulated class: repeatable, within the measured quantiles, acceptable to the API, and found out."""

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime

import pytest

from usability.detection import classroom
from usability.detection.classroom import EpisodeOpened, Recovered
from usability.detection.kinds import MetricType, SignalFamily
from usability.detection.observations import from_metric
from usability.ingest.decode import BATCH_LIMIT, Rules, decode
from usability.simulator import KINDS, LESSON_S, ClassSimulator, temper

START_MS = 1_760_000_000_000
PUPILS = [f"pupil-{index:02d}" for index in range(28)]
LESSON_MS = int(LESSON_S * 1000)

FOUND_AS = {
    "stuck": SignalFamily.ACCURACY,
    "guessing": SignalFamily.GUESSING,
    "wheel": SignalFamily.PROGRESS,
    "corrections": SignalFamily.TYPING,
    "silent": SignalFamily.PAUSE,
    "away": SignalFamily.AWAY,
    "hints": SignalFamily.GUESSING,
    "pauses": SignalFamily.PAUSE,
    "help": SignalFamily.HELP,
}


def simulated(seed=1, **kwargs):
    return ClassSimulator(PUPILS, seed=seed, start_ms=START_MS, **kwargs)


def milliseconds(metric):
    return round(datetime.fromisoformat(metric["timestamp"]).timestamp() * 1000)


def judged(metrics):
    observations = [
        from_metric(
            id=f"{index:08d}",
            student_id=metric["student_id"],
            app_name=metric["app_name"],
            metric_type=metric["metric_type"],
            metric_value=metric["metric_value"],
            at_ms=milliseconds(metric),
            received_ms=milliseconds(metric) + 300,
            session_id=metric["session_id"],
            metadata=metric["metadata"],
        )
        for index, metric in enumerate(metrics)
    ]
    return classroom.rebuild("room-1", observations, now_ms=START_MS + LESSON_MS + 60_000)[1]


@pytest.fixture(scope="module")
def lesson():
    return simulated(struggles=0).until(START_MS + LESSON_MS)


def test_the_same_seed_gives_the_same_lesson_however_often_it_is_asked_for():
    whole = simulated().until(START_MS + 600_000)
    asked, pieces = simulated(), []
    for now_ms in range(START_MS, START_MS + 600_001, 700):
        pieces += asked.until(now_ms)
    pieces += asked.until(START_MS + 600_000)

    assert pieces == whole
    assert simulated(seed=2).until(START_MS + 600_000) != whole


def test_metrics_come_in_order_of_time_and_each_once(lesson):
    times = [milliseconds(metric) for metric in lesson]

    assert times == sorted(times)
    assert simulated(struggles=0).until(START_MS - 1) == []


def test_speed_packs_a_lesson_into_less_time():
    usual, fast = simulated(), simulated(speed=20)

    assert len(fast.until(START_MS + 30_000)) == len(usual.until(START_MS + 600_000))


def test_a_class_goes_on_to_the_next_lesson():
    metrics = simulated().until(START_MS + 2 * LESSON_MS)

    assert len({metric["session_id"] for metric in metrics}) == 2


def test_a_lesson_lies_within_the_measured_quantiles(lesson):
    strokes, corrections, answers = Counter(), Counter(), defaultdict(list)
    for metric in lesson:
        if metric["metric_type"] in {"keypress", "backspace"}:
            strokes[metric["student_id"]] += metric["metric_value"]
        if metric["metric_type"] == "backspace":
            corrections[metric["student_id"]] += metric["metric_value"]
        if metric["metric_type"] == "answer":
            answers[metric["student_id"]].append(metric["metric_value"])
    shares = sorted(corrections[pupil] / strokes[pupil] for pupil in PUPILS)

    assert 0.7 < sum(strokes.values()) / len(PUPILS) / LESSON_S < 1.5
    assert 0.05 < shares[2] < 0.15 < shares[-3] < 0.30
    assert 0.8 < sum(map(sum, answers.values())) / sum(map(len, answers.values())) < 0.96
    assert 20 < sum(map(len, answers.values())) / len(PUPILS) < 150


def test_every_metric_is_one_the_api_takes(lesson):
    struggling = simulated(struggles=len(KINDS)).until(START_MS + LESSON_MS)
    received_at = datetime.fromtimestamp((START_MS + LESSON_MS) / 1000, UTC)

    for begin in range(0, len(struggling), BATCH_LIMIT):
        body = "\n".join(map(json.dumps, struggling[begin : begin + BATCH_LIMIT])).encode()
        decoded = decode(body, is_lines=True, received_at=received_at, rules=Rules())
        assert decoded.rejected == []
    assert {metric["metric_type"] for metric in lesson + struggling} <= set(MetricType)


def test_a_pupil_is_the_same_in_every_lesson_and_pupils_differ():
    assert temper(1, "a") == temper(1, "a")
    assert len({temper(1, pupil).corrections for pupil in PUPILS}) == len(PUPILS)


def test_struggles_are_dealt_to_different_pupils_and_change_by_lesson():
    class_ = simulated(struggles=9)

    first, second = class_.struggles(0), class_.struggles(1)

    assert sorted(each.kind for each in first) == sorted(KINDS)
    assert len({each.student_id for each in first}) == 9
    assert first != second
    assert ClassSimulator(PUPILS[:2], seed=1, start_ms=0, struggles=9).struggles()[-1].end_s < LESSON_S


def test_a_calm_class_gives_few_alerts_above_info(lesson):
    decisions = judged(lesson)

    above = {each.episode.id for each in decisions if hasattr(each, "alert") and each.alert != "info"}
    assert len(above) <= 6


def test_every_struggle_of_a_lesson_is_found():
    class_ = simulated(seed=4, struggles=len(KINDS))
    decisions = judged(class_.until(START_MS + LESSON_MS))

    for struggle in class_.struggles():
        found = {
            each.episode.family
            for each in decisions
            if isinstance(each, EpisodeOpened)
            and each.episode.student_id == struggle.student_id
            and struggle.start_s <= (each.episode.opened_ms - START_MS) / 1000 < struggle.end_s + 120
        }
        assert FOUND_AS[struggle.kind] in found, struggle
    assert [each for each in decisions if isinstance(each, Recovered)]
