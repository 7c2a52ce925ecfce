from __future__ import annotations

import contextlib
import datetime as dt
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.senders import metric
from usability.ingest.decode import BATCH_LIMIT, Decoded, Malformed, Rules, TooManyItems, decode, is_id

NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)


def judged(body: Any, *, lines: bool = False, rules: Rules | None = None) -> Decoded:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return decode(raw, is_lines=lines, received_at=NOW, rules=rules or Rules())


def good(**fields: Any) -> dict[str, Any]:
    return metric(**({"timestamp": NOW.isoformat()} | fields))


def at(decoded: Decoded, index: int = 0) -> dt.datetime:
    return dt.datetime.fromtimestamp(decoded.at_us[index] / 1e6, tz=dt.UTC)


# ---------------------------------------------------------------- shapes of a body


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (good(), False),
        ([good()], False),
        ({"metrics": [good()]}, False),
        ({"metrics": [good()], "batch_id": "b-1", "sent_at": NOW.isoformat()}, False),
        (b" \n " + json.dumps([good()]).encode(), False),
        (json.dumps(good()).encode(), True),
        (json.dumps(good()).encode() + b"\n\n", True),
    ],
)
def test_a_metric_alone_in_a_list_in_an_envelope_and_on_a_line_is_one_metric(body: Any, lines: bool) -> None:
    decoded = judged(body, lines=lines)

    assert (len(decoded.metrics), decoded.rejected) == (1, [])


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        (b"", ("body",)),
        (b"{", ("body",)),
        (b"7", ("body",)),
        (b'"text"', ("body",)),
        (b"null", ("body",)),
        (b"\xff\xfe", ("body",)),
        (b"[" * 100_000, ("body",)),
        (b'[{"student_id":' + b"[" * 50_000 + b"]" * 50_000 + b"}]", ("body",)),
        ({"metrics": 5}, ("body", "metrics")),
        ({"metrics": [], "colour": 1}, ("body", "colour")),
        ({"metrics": [], "batch_id": 5}, ("body", "batch_id")),
        ({"metrics": [], "batch_id": "a b"}, ("body", "batch_id")),
        ({"metrics": [], "batch_id": ""}, ("body", "batch_id")),
        ({"metrics": [], "batch_id": "x" * 101}, ("body", "batch_id")),
        ({"metrics": [], "sent_at": "yesterday"}, ("body", "sent_at")),
        ({"metrics": [], "sent_at": "2026-11-24T12:00:00"}, ("body", "sent_at")),
    ],
)
def test_a_body_that_is_no_batch_is_refused_as_a_whole(body: Any, loc: tuple[str, ...]) -> None:
    with pytest.raises(Malformed) as refused:
        judged(body)

    assert refused.value.loc == loc


def test_a_batch_has_at_most_five_thousand_metrics() -> None:
    assert len(judged([good()] * BATCH_LIMIT).metrics) == BATCH_LIMIT
    for body, lines in (
        ([good()] * (BATCH_LIMIT + 1), False),
        ([{}] * (BATCH_LIMIT + 1), False),
        (b"{}\n" * (BATCH_LIMIT + 1), True),
    ):
        with pytest.raises(TooManyItems):
            judged(body, lines=lines)


def test_an_empty_list_is_an_empty_batch() -> None:
    assert judged([]).metrics == judged({"metrics": []}).metrics == []


# ---------------------------------------------------------------- one metric


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"student_id": None}, ("student_id",)),
        ({"student_id": ""}, ("student_id",)),
        ({"student_id": "a b"}, ("student_id",)),
        ({"student_id": "a\n"}, ("student_id",)),
        ({"student_id": "a\0"}, ("student_id",)),
        ({"student_id": "é"}, ("student_id",)),
        ({"student_id": "\ud800"}, ("student_id",)),
        ({"student_id": "x" * 51}, ("student_id",)),
        ({"student_id": 7}, ("student_id",)),
        ({"app_name": ""}, ("app_name",)),
        ({"app_name": "x" * 51}, ("app_name",)),
        ({"metric_type": "feeling"}, ("metric_type",)),
        ({"metric_type": ""}, ("metric_type",)),
        ({"metric_type": "Keypress"}, ("metric_type",)),
        ({"metric_value": "3"}, ("metric_value",)),
        ({"metric_value": True}, ("metric_value",)),
        ({"metric_value": -1}, ("metric_value",)),
        ({"metric_value": float("nan")}, ("metric_value",)),
        ({"metric_value": float("inf")}, ("metric_value",)),
        ({"metric_value": 1e300}, ("metric_value",)),
        ({"metric_type": "answer", "metric_value": 2}, ("metric_value",)),
        ({"session_id": ""}, ("session_id",)),
        ({"session_id": "x" * 101}, ("session_id",)),
        ({"timestamp": "today"}, ("timestamp",)),
        ({"timestamp": "2026-11-24T12:00:00"}, ("timestamp",)),
        ({"timestamp": 1_790_000_000}, ("timestamp",)),
        ({"timestamp": "2026-11-24T12:05:01Z"}, ("timestamp",)),
        ({"timestamp": "2026-11-17T11:59:59Z"}, ("timestamp",)),
        ({"typed": "secret"}, ("typed",)),
        ({"metadata": {"text": "hello"}}, ("metadata", "text")),
        ({"metadata": {"item": "hello world"}}, ("metadata", "item")),
        ({"metadata": {"item": "x" * 101}}, ("metadata", "item")),
        ({"metadata": {"item": ""}}, ("metadata", "item")),
        ({"metadata": {"skill": 7}}, ("metadata", "skill")),
        ({"metadata": {"element": "a,b"}}, ("metadata", "element")),
        ({"metadata": {"correct": "yes"}}, ("metadata", "correct")),
        ({"metadata": {"correct": 1}}, ("metadata", "correct")),
        ({"metadata": {"hint_level": "two"}}, ("metadata", "hint_level")),
        ({"metadata": {"duration_ms": -1}}, ("metadata", "duration_ms")),
        ({"metadata": {"duration_ms": float("nan")}}, ("metadata", "duration_ms")),
        ({"metadata": {"seq": 1e16}}, ("metadata", "seq")),
        ({"metadata": {"sdk": "my secret"}}, ("metadata", "sdk")),
        ({"metadata": {"sdk": "1." * 20}}, ("metadata", "sdk")),
        ({"metadata": {"item": {"a": 1}}}, ("metadata", "item")),
        ({"metadata": []}, ("metadata",)),
    ],
)
def test_a_metric_that_breaks_a_rule_is_refused_by_its_path_and_its_neighbours_are_kept(
    fields: dict[str, Any], place: tuple[str, ...]
) -> None:
    decoded = judged([good(), good(**fields), good()])

    assert len(decoded.metrics) == 2
    assert [(r.index, r.loc) for r in decoded.rejected] == [(1, ("body", 1, *place))]


@pytest.mark.parametrize("item", [None, 7, "text", [], True])
def test_what_is_no_object_is_refused_in_its_place(item: Any) -> None:
    decoded = judged({"metrics": [good(), item]})

    assert [(r.index, r.loc) for r in decoded.rejected] == [(1, ("body", "metrics", 1))]


def test_a_line_that_is_no_json_is_refused_in_its_place() -> None:
    body = b"\n".join([json.dumps(good()).encode(), b"{oops", b"", b'{"student_id": "\\ud800"}', b"\xff"])

    decoded = judged(body, lines=True)

    assert (len(decoded.metrics), [r.index for r in decoded.rejected]) == (1, [1, 2, 3])


def test_a_single_metric_is_refused_where_it_stands() -> None:
    assert judged(good(metric_type="feeling")).rejected[0].loc == ("body", "metric_type")
    assert judged(good(metadata={"text": 1})).rejected[0].loc == ("body", "metadata", "text")


def test_all_of_metadata_is_taken_when_it_is_well_formed() -> None:
    whole = {
        "item": "fractions/7",
        "skill": "add:fractions",
        "element": "button.ok",
        "correct": True,
        "similar": False,
        "is_bottom": False,
        "late": True,
        "hint_level": 2,
        "attempt": 3,
        "duration_ms": 812.5,
        "bucket_ms": 1000,
        "age_ms": 20,
        "seq": 7,
        "sdk": "1.4.2-beta.1",
    }

    decoded = judged(good(metadata=whole))

    assert decoded.rejected == []
    assert {name: getattr(decoded.metrics[0].metadata, name) for name in whole} == whole


def test_null_stands_for_a_field_that_is_left_out() -> None:
    body = dict.fromkeys(("timestamp", "session_id", "metadata"))

    assert judged([good() | body]).rejected == []


def test_an_app_may_send_types_it_has_registered_and_they_may_be_negative() -> None:
    rules = Rules(own_types=lambda app_name: {"tempo"} if app_name == "maths" else ())

    decoded = judged(
        [good(metric_type="tempo", metric_value=-2), good(app_name="piano", metric_type="tempo")], rules=rules
    )

    assert (len(decoded.metrics), [r.index for r in decoded.rejected]) == (1, [1])


@pytest.mark.parametrize(
    ("rules", "place"),
    [(Rules(app_name="piano"), "app_name"), (Rules(student_id="someone"), "student_id")],
)
def test_a_caller_bound_to_an_app_or_a_student_sends_for_it_alone(rules: Rules, place: str) -> None:
    judged([good()])  # known ids must not open a shorter way round the rule

    assert judged([good()], rules=rules).rejected[0].loc == ("body", 0, place)


# ---------------------------------------------------------------- time


@pytest.mark.parametrize("offset_s", [-3 * 3600, -90, 0, 90, 3 * 3600])
def test_a_clients_wrong_clock_is_corrected_by_the_moment_of_sending(offset_s: int) -> None:
    clock = NOW + dt.timedelta(seconds=offset_s)
    happened = clock - dt.timedelta(seconds=12)

    decoded = judged({"sent_at": clock.isoformat(), "metrics": [good(timestamp=happened.isoformat())]})

    assert at(decoded) == NOW - dt.timedelta(seconds=12)


def test_a_metric_without_a_time_happened_its_age_before_the_receipt() -> None:
    assert at(judged(good(timestamp=None))) == NOW
    assert at(judged(good(timestamp=None, metadata={"age_ms": 1500}))) == NOW - dt.timedelta(seconds=1.5)


def test_a_time_with_another_offset_is_the_same_moment() -> None:
    assert at(judged(good(timestamp="2026-11-24T13:00:00+01:00"))) == NOW


def test_the_bounds_of_time_are_part_of_what_is_taken() -> None:
    edges = [NOW - dt.timedelta(days=7), NOW + dt.timedelta(minutes=5)]

    assert judged([good(timestamp=edge.isoformat()) for edge in edges]).rejected == []


def test_late_metrics_are_counted() -> None:
    ages = (0, 59, 61, 86_400)

    decoded = judged([good(timestamp=(NOW - dt.timedelta(seconds=age)).isoformat()) for age in ages])

    assert decoded.late == 2


# ---------------------------------------------------------------- whatever comes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from([*good(), "metadata", "batch_id", "metrics", "extra"]), JSON, max_size=6
)


@settings(max_examples=150, deadline=None)
@given(
    JSON
    | FIELDS
    | st.lists(FIELDS, max_size=4)
    | st.builds(lambda m: {"metrics": m}, st.lists(FIELDS, max_size=4))
)
def test_any_json_is_judged_or_refused_and_never_breaks_the_door(body: Any) -> None:
    try:
        decoded = judged(json.dumps(body).encode())
    except Malformed:
        return
    assert all(is_id(one.student_id, 50) and is_id(one.app_name, 50) for one in decoded.metrics)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_judged_or_refused(body: bytes, lines: bool) -> None:
    with contextlib.suppress(Malformed):
        judged(body, lines=lines)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["good", "bad"]), max_size=12))
def test_the_item_by_item_way_and_the_quick_way_agree(kinds: list[str]) -> None:
    items = [
        good(metric_value=n) if kind == "good" else good(metric_value="x") for n, kind in enumerate(kinds)
    ]

    decoded = judged(items)

    assert [m.metric_value for m in decoded.metrics] == [n for n, kind in enumerate(kinds) if kind == "good"]
    assert [r.index for r in decoded.rejected] == [n for n, kind in enumerate(kinds) if kind == "bad"]


# ---------------------------------------------------------------- one bad item does not cost the others

DEEP = b"[" * 100_000 + b"]" * 100_000
GOOD = json.dumps(good()).encode()


@pytest.mark.parametrize("envelope", [b"[%s]", b'{"metrics": [%s]}'], ids=["list", "envelope"])
@pytest.mark.parametrize(
    "bad",
    [
        DEEP,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        GOOD.replace(
            b"sitting-1", b'sitting-1", "metadata": {"item": "[[{\\"", "seq": ' + DEEP + b'}, "x": "'
        ),
        GOOD.replace(b'"metric_value": 3', b'"metric_value": ' + b"9" * 5_000),
        GOOD.replace(b'"metric_value": 3', b'"metric_value": -' + b"9" * 5_000),
        GOOD.replace(b'"metric_value": 3', b'"metric_value": NaN'),
    ],
    ids=["list", "object", "metadata", "digits", "negative digits", "NaN"],
)
def test_an_item_no_reader_can_take_in_is_refused_alone(bad: bytes, envelope: bytes) -> None:
    decoded = judged(envelope % b",".join((GOOD, bad, GOOD)))

    assert len(decoded.metrics) == 2
    assert [rejection.index for rejection in decoded.rejected] == [1]


def test_a_line_no_reader_can_take_in_is_refused_alone() -> None:
    decoded = judged(b"\n".join((GOOD, DEEP, b"9" * 5_000, GOOD)), lines=True)

    assert len(decoded.metrics) == 2
    assert [rejection.index for rejection in decoded.rejected] == [1, 2]


@pytest.mark.parametrize(
    "body",
    [DEEP, b"[" * 1_000_000, b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000],
    ids=["closed", "a million", "open", "objects"],
)
def test_a_body_of_brackets_alone_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        judged(body)


@pytest.mark.parametrize("value", [0.5, 2, 1e-9, 0.999])
def test_an_answer_is_right_or_wrong_and_nothing_between(value: float) -> None:
    decoded = judged(
        [good(metric_type="answer", metric_value=1)] * 2 + [good(metric_type="answer", metric_value=value)]
    )

    assert len(decoded.metrics) == 2
    assert decoded.rejected[0].loc == ("body", 2, "metric_value")
