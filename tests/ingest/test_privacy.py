"""Typed text never enters: a secret, put wherever a client could put it, is in no stored byte, no line of a log,
no entry of a stream and no label of a metric.

Text is told from an id by its shape alone. So the proof has two halves: what is no id is nowhere, and what has
the shape of an id is where that id belongs and nowhere else. `feedback_text` of a rating is for text, as is what
a learning record store keeps under /xapi/; both are looked at apart.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
import urllib3
from django.contrib.auth import get_user_model
from django.db import connection, connections
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gaia_site.keys import forget_keys, issue_key
from tests.api.live import Web
from tests.ingest.senders import metric
from usability.ingest.decode import is_id
from usability.ingest.stream import key_of

pytestmark = pytest.mark.django_db(transaction=True)

METRICS = "/api/v1/usability/metrics"
ORIGIN = "https://maths.example"
XAPI_TABLES = re.compile(r"^xapi_")

# ---------------------------------------------------------------- what is sent


@dataclass(frozen=True)
class Call:
    """One HTTP request. Header values are sent as Latin-1, so they may hold what a browser would never send."""

    body: Any = None
    path: str = METRICS
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)


def quoted(text: str) -> str:
    return urllib.parse.quote(text.encode("utf-8", "surrogatepass"), safe="")


def visible(text: str) -> str:
    """What of a text an HTTP header can carry."""
    return "".join(char for char in text if " " < char < "\x7f" or char == " ").strip() or "-"


STRINGS = ("student_id", "app_name", "metric_type", "session_id", "timestamp", "metric_value")
DETAILS = (
    *("item", "skill", "element", "sdk", "correct", "similar", "is_bottom", "late"),
    *("hint_level", "attempt", "duration_ms", "bucket_ms", "age_ms", "seq"),
)
HEADERS = (
    *("User-Agent", "Referer", "Origin", "Cookie", "Accept-Language", "X-Forwarded-For", "X-Request-Id"),
    *("traceparent", "Authorization", "Content-Type", "Content-Encoding", "If-None-Match", "X-Anything"),
    *("Sec-WebSocket-Key", "Access-Control-Request-Headers", "Idempotency-Key", "X-CSRFToken"),
)
RATING = {"student_id": "stu-0001", "app_name": "maths", "session_id": "sitting-1", "rating": 4}
TOKEN = {"student_id": "stu-0001", "app_name": "maths"}
Place = Callable[[str], Call]


def places() -> dict[str, Place]:
    """Every place of a request into the usability half, by a name."""
    found: dict[str, Place] = {}
    for name in STRINGS:
        found[f"metric.{name}"] = lambda text, name=name: Call([metric(**{name: text}), metric()])
    for name in DETAILS:
        found[f"metadata.{name}"] = lambda text, name=name: Call([metric(metadata={name: text})])
        found[f"metadata.{name}, nested"] = lambda text, name=name: Call(
            [metric(metadata={name: {text: [text]}})]
        )
    for name in ("Idempotency-Key", "Host", "Origin"):
        found[f"header {name} of a rating"] = lambda text, name=name: Call(
            RATING, "/api/v1/usability/ratings", headers={name: visible(text).replace(" ", "!")}
        )
    for name in HEADERS:
        found[f"header {name}"] = lambda text, name=name: Call([metric()], headers={name: visible(text)})
    for name in ("student_id", "app_name", "session_id", "rating", "comment"):
        found[f"rating.{name}"] = lambda text, name=name: Call(
            RATING | {name: text}, "/api/v1/usability/ratings"
        )
    for name in ("student_id", "app_name", "ttl_s", "comment"):
        found[f"session.{name}"] = lambda text, name=name: Call(
            TOKEN | {name: text}, "/api/v1/usability/sessions"
        )
    for path in ("students/{}/metrics", "students/{}/timeline", "apps/{}/health", "help-requests/{}", "{}"):
        found[f"path {path}"] = lambda text, path=path: Call(
            None, f"/api/v1/usability/{path.format(quoted(text))}", "GET"
        )
    for path in ("/{}", "/static/{}", "/xapi/{}"):
        found[f"path {path}"] = lambda text, path=path: Call(None, path.format(quoted(text)), "GET")
    for query in ("validate_only={}", "key={}", "{}=1", "since={}", "batch_id={}"):
        found[f"query {query}"] = lambda text, query=query: Call(
            [metric()], f"{METRICS}?{query.format(quoted(text))}"
        )
        found[f"query {query} of ratings"] = lambda text, query=query: Call(
            None, f"/api/v1/usability/ratings?{query.format(quoted(text))}", "GET"
        )
    return found | {
        "unknown field": lambda text: Call([metric(**{text or "x": 1}), metric()]),
        "value of an unknown field": lambda text: Call([metric(note=text)]),
        "unknown key of metadata": lambda text: Call([metric(metadata={text: 1}), metric()]),
        "metadata itself": lambda text: Call([metric(metadata=text)]),
        "batch_id": lambda text: Call({"batch_id": text, "metrics": [metric()]}),
        "sent_at": lambda text: Call({"sent_at": text, "metrics": [metric()]}),
        "envelope": lambda text: Call({text: text, "metrics": [metric()]}),
        "a metric that is text": lambda text: Call({"metrics": [text]}),
        "the body": lambda text: Call(text.encode("utf-8", "surrogatepass")),
        "the body as text": Call,
        "a cut body": lambda text: Call(json.dumps([metric(student_id=text)])[:-9].encode()),
        "a line of NDJSON": lambda text: Call(
            json.dumps(metric()).encode() + b"\n" + text.encode("utf-8", "surrogatepass"),
            headers={"Content-Type": "application/x-ndjson"},
        ),
        "a beacon": lambda text: Call(
            text.encode("utf-8", "surrogatepass"), headers={"Content-Type": "text/plain;charset=UTF-8"}
        ),
        "a body in gzip": lambda text: Call(
            gzip.compress(json.dumps([metric(session_id=text)]).encode()),
            headers={"Content-Encoding": "gzip"},
        ),
        "a body said to be gzip": lambda text: Call(
            text.encode("utf-8", "surrogatepass"), headers={"Content-Encoding": "gzip"}
        ),
    }


PLACES = places()


# ---------------------------------------------------------------- where it is looked for


class Watched:
    """A running web process, and all that it and its servers keep."""

    def __init__(self, site: Web, secret: str, redis_url: str) -> None:
        self.site = site
        self.secret = secret
        self._pool = urllib3.PoolManager(retries=False)
        self._redis = redis.Redis.from_url(redis_url)

    def send(self, call: Call) -> int:
        """The status; 0 where the server hung up on what is no HTTP."""
        headers = {
            "Authorization": f"Bearer {self.secret}",
            "Content-Type": "application/json",
        } | call.headers
        body = call.body
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            answer = self._pool.request(
                call.method,
                self.site.url + call.path,
                body=body,
                headers=headers,
                timeout=20.0,
                redirect=False,
            )
            return answer.status
        return 0

    def kept(self, skipped: re.Pattern[str] | None = None) -> str:
        """All rows of all tables, all stream entries, all log lines, all labels; bytes are shown as hex too."""
        labels = self._pool.request("GET", f"{self.site.url}/metrics", timeout=20.0).data.decode()
        return "\n".join([self.rows(skipped), self.entries(), self.logged(), labels])

    def rows(self, skipped: re.Pattern[str] | None = None) -> str:
        parts = []
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
            )
            for (table,) in cursor.fetchall():
                if skipped is None or not skipped.search(table):
                    cursor.execute(f'SELECT t::text FROM "{table}" t')
                    parts += [row[0] for row in cursor.fetchall()]
        return "\n".join(parts)

    def entries(self) -> str:
        found = [
            value
            for key in (*(key_of(number) for number in range(16)), *self._redis.keys("gaia:*"))
            if self._redis.type(key) == b"stream"
            for _, entry in self._redis.xrange(key)
            for value in entry.values()
        ]
        return b"\n".join([*found, *self._redis.keys("*")]).decode("latin-1")

    def logged(self) -> str:
        """What the web process said, and what PostgreSQL and Redis did."""
        servers = _log_folder()
        own = self.site.log_path.read_text(errors="replace")
        return "\n".join([own, *(path.read_text(errors="replace") for path in servers.glob("*.log"))])


def _log_folder() -> Path:
    with connection.cursor() as cursor:
        cursor.execute("SELECT setting FROM pg_settings WHERE name = 'data_directory'")
        return Path(cursor.fetchone()[0]).parent


def marks_in(kept: str, marks: list[str]) -> list[str]:
    return [mark for mark in marks if mark in kept or mark.encode().hex() in kept]


@pytest.fixture(scope="module")
def site(django_db_setup: None, django_db_blocker: Any) -> Iterator[Web]:
    with django_db_blocker.unblock():
        process = Web(SimpleNamespace(urls=["http://127.0.0.1:9"]), LOG_LEVEL="DEBUG").start()
    yield process
    process.close()


@pytest.fixture
def watched(site: Web, transactional_db: None, settings: Any) -> Iterator[Watched]:
    forget_keys()
    owner = get_user_model().objects.create_user("apps")
    _, secret = issue_key(
        name="maths",
        owner=owner,
        scopes=["metrics:write", "metrics:read"],
        app_name="maths",
        allowed_origins=[ORIGIN],
    )
    yield Watched(site, secret, settings.GAIA.redis_url)
    connections.close_all()
    forget_keys()


# Fourteen letters that occur nowhere else, in something that is no id: a sentence, a blank, a letter from elsewhere.
marks = st.text("bcdfghjklmnpqrstvwxyz", min_size=14, max_size=14)
around = st.text(st.characters(exclude_characters="\0"), max_size=30)
texts = st.tuples(around, marks, st.sampled_from((" ", "@", "!", "ä", "\n", "'", "😀", "\ud800")), around)


def test_text_in_any_place_of_a_request_is_kept_nowhere(watched: Watched) -> None:
    sent: list[str] = []

    @hypothesis_settings(
        max_examples=120,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(where=st.sampled_from(sorted(PLACES)), parts=texts)
    def anywhere(where: str, parts: tuple[str, str, str, str]) -> None:
        watched.send(PLACES[where]("".join(parts)))
        sent.append(parts[1])
        assert marks_in(watched.rows() + watched.logged(), [parts[1]]) == [], where

    for where in PLACES:
        # Not the mark that another test sends as an id, which the stream may still hold.
        mark = _mark(f"text in {where}")
        anywhere = example(where=where, parts=("my secret is", mark, " ", "and näive"))(anywhere)
    anywhere()

    watched.send(Call([metric()]))
    _until_counted(watched)
    kept = watched.kept()
    assert "stu-0001" in kept
    assert "bad_id" in kept
    assert marks_in(kept, sent) == []


def _mark(where: str) -> str:
    """Fourteen letters of its own for each place."""
    digest = hashlib.sha256(where.encode()).digest()
    return "".join("bcdfghjklmnpqrstvwxz"[byte % 20] for byte in digest[:14])


def _until_counted(watched: Watched) -> None:
    """Until the counts of refusals, which are written every few seconds, are there."""
    end = time.monotonic() + 20
    while "bad_id" not in watched.rows():
        assert time.monotonic() < end
        time.sleep(0.1)


# ---------------------------------------------------------------- what has the shape of an id

# Where an id is kept. Everything else that has the shape of one is refused or ignored.
KEPT = {
    "metric.student_id": "student_id",
    "metric.session_id": "session_id",
    "metadata.item": "item",
    "metadata.skill": "skill",
    "metadata.element": "element",
    "a body in gzip": "session_id",
    "batch_id": "batch_id",
    "rating.student_id": "student_id",
    "rating.session_id": "session_id",
}


def test_an_id_is_kept_where_it_belongs_and_nowhere_else(watched: Watched) -> None:
    ids = {where: f"x{_mark(where)}" for where in PLACES}

    for where, text in ids.items():
        watched.send(PLACES[where](text))
    watched.send(Call([metric(student_id="a b")]))
    _until_counted(watched)

    rows, entries = watched.rows(), watched.entries()
    outside = watched.logged() + watched._pool.request("GET", f"{watched.site.url}/metrics").data.decode()
    assert set(marks_in(rows + entries, list(ids.values()))) == {ids[where] for where in KEPT}
    assert marks_in(outside, list(ids.values())) == []


@given(text=st.text(max_size=110))
def test_an_id_is_letters_digits_and_six_signs_and_short(text: str) -> None:
    assert is_id(text, 100) == bool(re.fullmatch(r"[A-Za-z0-9._:/-]{1,100}", text, re.ASCII))


@pytest.mark.parametrize(
    ("name", "limit"),
    [("student_id", 50), ("session_id", 100), ("item", 100), ("skill", 100), ("element", 100)],
)
def test_the_length_of_an_id_is_bounded(watched: Watched, name: str, limit: int) -> None:
    def with_id(text: str) -> Call:
        inner = {name: text} if name.endswith("_id") else {"metadata": {name: text}}
        return Call([metric(**inner)])

    watched.send(with_id("l" * limit))
    watched.send(with_id("m" * (limit + 1)))

    rows = watched.rows()
    assert "l" * limit in rows
    assert "m" * limit not in rows


def test_a_version_may_hold_a_short_word_of_letters_and_digits(watched: Watched) -> None:
    for version in ("1.0.0-bcdfghjklm", "1.0.0-bcdf ghjklmnp", "zxwvtsrqpnm", "1.0-" + "y" * 40):
        watched.send(Call([metric(metadata={"sdk": version})]))

    assert marks_in(watched.rows(), ["bcdfghjklm", "ghjklmnp", "zxwvtsrqpnm", "y" * 40]) == ["bcdfghjklm"]


# ---------------------------------------------------------------- the two places for text


def test_feedback_is_kept_in_its_column_alone(watched: Watched) -> None:
    mark = _mark("feedback")

    assert (
        watched.send(Call(RATING | {"feedback_text": f"I like {mark}."}, "/api/v1/usability/ratings")) == 201
    )

    assert watched.rows().count(mark) == 1
    assert marks_in(watched.entries() + watched.logged(), [mark]) == []


def test_what_a_statement_says_is_in_the_record_store_and_nowhere_else(watched: Watched) -> None:
    mark = _mark("statement")
    statement = {
        "actor": {"account": {"homePage": "https://school.example", "name": "stu-0001"}},
        "verb": {"id": "http://adlnet.gov/expapi/verbs/answered", "display": {"en": f"said {mark}"}},
        "object": {
            "id": "https://maths.example/item-8",
            "definition": {"name": {"en": mark}, "description": {"en": f"a text of {mark}"}},
        },
        "result": {"success": False, "response": f"I think {mark}"},
    }
    basic = urllib3.make_headers(basic_auth=f"app:{watched.secret}")["authorization"]
    headers = {"X-Experience-API-Version": "1.0.3", "Authorization": basic}

    status = watched.send(Call(statement, "/xapi/statements", headers=headers))

    assert status == 200
    assert mark in watched.rows()
    assert marks_in(watched.rows(XAPI_TABLES) + watched.entries() + watched.logged(), [mark]) == []
