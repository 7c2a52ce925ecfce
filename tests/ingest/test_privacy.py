"""Typed text never enters: no text sent in any field is found in a stored byte or a log line."""

from __future__ import annotations

import contextlib
import logging
import random
import string
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.db import connection

from gaia_site.problems import Problem
from tests.ingest.senders import metric, request
from usability.ingest.endpoint import Ingest
from usability.ingest.stream import key_of

pytestmark = pytest.mark.django_db(transaction=True)

STRINGS = ("student_id", "app_name", "metric_type", "session_id", "timestamp")
NUMBERS_AND_FLAGS = ("correct", "similar", "is_bottom", "late", "hint_level", "attempt", "duration_ms", "seq")
DETAILS = ("item", "skill", "element", "sdk", *NUMBERS_AND_FLAGS)


def texts(seed: int, count: int) -> list[str]:
    """Sentences as a learner might type them; each holds a mark that occurs nowhere else."""
    chance = random.Random(seed)
    forms = (
        "my password is {}",
        "{} hates me",
        "näive {}",
        "{}\n",
        "dear diary,{}",
        "{}@home!",
        "\ud800{}",
        "{}\0",
        "'{}'",
    )
    marks = ("".join(chance.choices(string.ascii_lowercase, k=14)) for _ in range(count))
    return [chance.choice(forms).format(mark) for mark in marks]


def mark_of(text: str) -> str:
    return max("".join(char if char in string.ascii_lowercase else " " for char in text).split(), key=len)


def everywhere(text: str) -> Iterator[Any]:
    """Bodies with the text in each place that a body has."""
    for name in STRINGS:
        yield [metric(**{name: text}), metric()]
    yield [metric(metric_value=text)]
    yield [metric(**{text: 1})]
    yield [metric(metadata={text: 1}), metric()]
    yield [metric(metadata=text)]
    for name in DETAILS:
        yield [metric(metadata={name: text})]
        yield [metric(metadata={name: {text: text}})]
    yield {"batch_id": text, "metrics": [metric()]}
    yield {"sent_at": text, "metrics": [metric()]}
    yield {text: text, "metrics": [metric()]}
    yield {"metrics": [text]}
    yield text


@sync_to_async
def stored_bytes() -> bytes:
    """All rows of all tables, as text."""
    parts = []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            parts += [row[0].encode() for row in cursor.fetchall()]
    return b"\n".join(parts)


def streamed_bytes(url: str) -> bytes:
    client = redis.Redis.from_url(url)
    return b"\n".join(
        value
        for partition in range(16)
        for _, entry in client.xrange(key_of(partition))
        for value in entry.values()
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_random_text_in_any_field_is_found_in_no_stored_byte_and_no_log_line(
    ingest: Ingest, settings: Any, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.DEBUG)
    sent_texts = texts(seed, 6)
    for text in sent_texts:
        for body in everywhere(text):
            with contextlib.suppress(Problem):
                await ingest.take(request(body))
        for raw in (
            text.encode("utf-8", "surrogatepass"),
            f'[{{"student_id": "{text}"'.encode("utf-8", "replace"),
        ):
            for content_type in ("application/json", "application/x-ndjson", text):
                with contextlib.suppress(Problem):
                    await ingest.take(request(raw, content_type=content_type))
        with contextlib.suppress(Problem):
            await ingest.take(request([metric()], idempotency_key=mark_of(text)))
    await ingest.close()  # stores the counts of rejections too

    kept = await stored_bytes() + streamed_bytes(settings.GAIA.redis_url)
    logged = "\n".join(record.getMessage() + str(vars(record)) for record in caplog.records)

    assert b"stu-0001" in kept
    assert b"bad_id" in kept
    marks = [mark_of(text) for text in sent_texts]
    assert [mark for mark in marks if mark.encode() in kept or mark in logged] == []
