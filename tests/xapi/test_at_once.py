"""Writers and readers at the same time."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction

from tests.xapi.conftest import VERB, Store, statement
from usability.xapi import store as records
from usability.xapi import values
from usability.xapi.statement import statement as judged
from usability.xapi.versions import Version

pytestmark = pytest.mark.django_db(transaction=True)

WAIT_S = 20
AUTHORITY = {"objectType": "Agent", "account": {"homePage": "https://x.example", "name": "key:x"}}


@contextmanager
def unfinished(sent: dict[str, Any], app_name: str = "maths") -> Iterator[threading.Event]:
    """Another writer that has stored `sent` and commits when the event is set."""
    is_stored, may_end = threading.Event(), threading.Event()

    def write() -> None:
        with transaction.atomic():
            one = records.arrival(judged(sent, (), Version.V1), uuid.uuid4())
            records.store([one], {}, app_name=app_name, authority=AUTHORITY, version=Version.V1)
            is_stored.set()
            may_end.wait(WAIT_S)
        connections.close_all()

    thread = threading.Thread(target=write)
    thread.start()
    assert is_stored.wait(WAIT_S)
    yield may_end
    may_end.set()
    thread.join(WAIT_S)


def through(store: Store) -> dt.datetime:
    answer = store("GET", "statements", limit="1")
    return values.moment(answer.headers["X-Experience-API-Consistent-Through"], ())


def test_what_is_promised_to_be_readable_ends_before_a_writer_that_has_not_finished(store: Store) -> None:
    sent = statement() | {"id": str(uuid.uuid4())}
    with unfinished(sent) as may_end:
        store.put(statement("ben"))
        promised = through(store)
        assert sent["id"] not in store.ids()
        may_end.set()

    stored = store("GET", "statements", statementId=sent["id"]).json()["stored"]
    assert promised < values.moment(stored, ())
    assert through(store) > values.moment(stored, ())


def test_a_writer_of_another_app_holds_nothing_back(store: Store) -> None:
    before = dt.datetime.now(tz=dt.UTC)
    with unfinished(statement(), app_name="piano"):
        assert through(store) > before


def test_a_pointer_that_arrives_with_its_target_finds_it(store: Store) -> None:
    target = statement(did="scored") | {"id": str(uuid.uuid4())}
    pointer = statement("x", "liked", object={"objectType": "StatementRef", "id": target["id"]}, result=None)
    found: list[str] = []

    def point() -> None:
        found.extend(store.put(pointer))
        connections.close_all()

    with unfinished(target) as may_end:
        thread = threading.Thread(target=point)
        thread.start()
        thread.join(0.3)
        may_end.set()
        thread.join(WAIT_S)

    assert set(store.ids(verb=VERB + "scored")) == {target["id"], *found}


def test_of_many_who_send_the_same_statements_one_stores_them(store: Store) -> None:
    from usability.models import UsabilityMetric

    batch = [statement() | {"id": str(uuid.uuid4())} for _ in range(30)]
    statuses: list[int] = []

    def send(is_backwards: bool) -> None:
        sent = batch[::-1] if is_backwards else batch
        statuses.append(store("POST", "statements", sent).status_code)
        connections.close_all()

    threads = [threading.Thread(target=send, args=(number % 2 == 0,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)

    assert statuses == [200] * 6
    assert len(store.ids()) == 30
    assert UsabilityMetric.objects.count() == 30
