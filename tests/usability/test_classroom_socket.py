"""The classroom socket behind the real ASGI application: who may look on, and that nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.test import Client

from usability import services, watching
from usability.models import ClassroomTeacher
from usability.selectors.signals import alerts_after
from usability.selectors.watch import news_after

pytestmark = pytest.mark.usefixtures("committed")

SOON_S = 5


async def in_thread(function: Any, *args: Any, **named: Any) -> Any:
    """Database work of a test, committed and seen by the socket."""
    from django.db import connections

    def run() -> Any:
        try:
            return function(*args, **named)
        finally:
            connections.close_all()

    return await sync_to_async(run, thread_sensitive=False)()


class Socket:
    """A client of the socket. Ends by itself at the end of `async with`."""

    def __init__(self, classroom_id: Any, secret: str = "", query: str = "", headers: Any = ()) -> None:
        from gaia_site.asgi import application

        given = [*headers]
        if secret:
            given.append((b"authorization", f"Bearer {secret}".encode()))
        self._link = WebsocketCommunicator(
            application, f"/ws/classrooms/{classroom_id}/{query}", headers=given
        )

    async def __aenter__(self) -> Self:
        connected, _ = await self._link.connect(timeout=SOON_S)
        assert connected
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.disconnect(timeout=SOON_S)

    async def next(self, *types: str) -> dict[str, Any]:
        """The next message of one of these types; others are passed over."""
        async with asyncio.timeout(SOON_S):
            while True:
                message = await self._link.receive_json_from(timeout=SOON_S)
                if not types or message["type"] in types:
                    return message

    async def closed_with(self) -> int:
        answer = await self._link.receive_output(timeout=SOON_S)
        assert answer["type"] == "websocket.close", answer
        return answer["code"]

    async def is_quiet(self, *types: str) -> bool:
        """Whether no message of these types comes within a poll's time."""
        end = asyncio.get_running_loop().time() + 0.6
        while (left := end - asyncio.get_running_loop().time()) > 0:
            if await self._link.receive_nothing(timeout=left, interval=0.02):
                return True
            if (await self._link.receive_json_from())["type"] in types:
                return False
        return True


@pytest.fixture
def alices_key(alice, secret_of):
    return secret_of(alice, "teacher")


async def test_it_greets_with_the_state_and_its_cursor(room, raised, alices_key):
    alert = await in_thread(raised)

    async with Socket(room.pk, alices_key) as socket:
        hello = await socket.next()

    assert hello["type"] == "hello"
    assert hello["cursor"] == alert.seq == hello["state"]["cursor"]
    assert [one["id"] for one in hello["state"]["alerts"]] == [str(alert.pk)]


async def test_it_tells_of_a_new_alert_and_of_its_change(room, alice, raised, alices_key):
    async with Socket(room.pk, alices_key) as socket:
        await socket.next("hello")
        alert = await in_thread(raised)
        new = await socket.next("alert", "alert.updated")
        await in_thread(services.on_my_way, alert.pk, who=alice)
        changed = await socket.next("alert", "alert.updated")

    assert (new["type"], new["alert"]["id"], new["cursor"]) == ("alert", str(alert.pk), alert.seq)
    assert (changed["type"], changed["alert"]["state"]) == ("alert.updated", "helping")
    assert changed["alert"]["helpers"] == ["Alice"]
    assert changed["cursor"] > new["cursor"]


async def test_a_reconnected_client_misses_nothing_and_sees_nothing_twice(room, raised, alices_key):
    first, second = await in_thread(raised, "p1"), await in_thread(raised, "p2")
    async with Socket(room.pk, alices_key, f"?after={first.seq}") as socket:
        hello = await socket.next()
        missed = await socket.next("alert", "alert.updated")
        third = await in_thread(raised, "p3")
        live = await socket.next("alert", "alert.updated")
        rest = await socket.is_quiet("alert", "alert.updated")

    assert hello["cursor"] == first.seq
    assert (missed["type"], missed["alert"]["id"]) == ("alert", str(second.pk))
    assert live["alert"]["id"] == str(third.pk)
    assert rest


async def test_a_cursor_from_the_future_is_answered_with_the_present(room, raised, alices_key):
    alert = await in_thread(raised)

    async with Socket(room.pk, alices_key, "?after=999999") as socket:
        hello = await socket.next("hello")

    assert hello["cursor"] == alert.seq


async def test_many_alerts_at_once_all_arrive_in_order(room, raised, alices_key):
    async with Socket(room.pk, alices_key) as socket:
        await socket.next("hello")
        raising = [asyncio.create_task(in_thread(raised, f"p{number % 6}")) for number in range(12)]
        alerts = await asyncio.gather(*raising)
        messages = [await socket.next("alert") for _ in alerts]

    assert {message["alert"]["id"] for message in messages} == {str(alert.pk) for alert in alerts}
    cursors = [message["cursor"] for message in messages]
    assert cursors == sorted(set(cursors))


async def test_without_any_hint_the_poll_finds_what_is_new(room, raised, alices_key, monkeypatch):
    monkeypatch.setattr(watching, "POLL_EVERY_S", 0.2)
    monkeypatch.setattr("usability.push.send_hint", lambda *_, **__: None)
    async with Socket(room.pk, alices_key) as socket:
        await socket.next("hello")
        alert = await in_thread(raised)
        message = await socket.next("alert")

    assert message["alert"]["id"] == str(alert.pk)


async def test_a_poll_that_fails_for_whatever_reason_does_not_end_the_watch(
    room, raised, alices_key, monkeypatch
):
    failing = iter([RuntimeError("not a matter of the database"), ValueError("nor this")])

    def sometimes(*args):
        error = next(failing, None)
        if error is not None:
            raise error
        return news_after(*args)

    monkeypatch.setattr(watching, "POLL_EVERY_S", 0.2)
    monkeypatch.setattr(watching, "news_after", sometimes)
    async with Socket(room.pk, alices_key) as socket:
        await socket.next("hello")
        alert = await in_thread(raised)
        message = await socket.next("alert")

    assert message["alert"]["id"] == str(alert.pk)
    assert next(failing, None) is None


async def test_more_than_one_page_missed_is_told_in_full(room, raised, alices_key, monkeypatch):
    monkeypatch.setattr("usability.consumers.CHANGES_LIMIT", 2)
    monkeypatch.setattr("usability.selectors.alerts_after", lambda *args: alerts_after(*args, limit=2))
    alerts = [await in_thread(raised, f"p{number % 6}") for number in range(7)]
    async with Socket(room.pk, alices_key, "?after=0") as socket:
        await socket.next("hello")
        messages = [await socket.next("alert") for _ in alerts]

    assert [message["alert"]["id"] for message in messages] == [str(alert.pk) for alert in alerts]


async def test_sockets_of_one_class_share_one_watch(room, alices_key, bob, secret_of):
    bobs_key = await in_thread(secret_of, bob, "teacher")
    async with Socket(room.pk, alices_key) as one, Socket(room.pk, bobs_key) as other:
        await one.next("hello")
        await other.next("hello")
        watches = [watch for (_, key), watch in watching._watches.items() if key == room.pk]
        assert [len(watch.lookers) for watch in watches] == [2]


async def test_another_teachers_class_closes_with_4403(room, charlie, secret_of):
    charlies_key = await in_thread(secret_of, charlie, "teacher")
    async with Socket(room.pk, charlies_key) as socket:
        assert await socket.closed_with() == 4403


async def test_a_class_that_does_not_exist_closes_with_4403(alices_key):
    async with Socket("01890000-0000-7000-8000-000000000000", alices_key) as socket:
        assert await socket.closed_with() == 4403


async def test_a_key_without_the_scope_closes_with_4403(room, alice, secret_of):
    key = await in_thread(secret_of, alice, "agent")
    async with Socket(room.pk, key) as socket:
        assert await socket.closed_with() == 4403


async def test_nobody_closes_with_4401(room):
    async with Socket(room.pk) as socket:
        assert await socket.closed_with() == 4401


async def test_a_malformed_cursor_closes_with_4400(room, alices_key):
    async with Socket(room.pk, alices_key, "?after=-1") as socket:
        assert await socket.closed_with() == 4400


async def test_a_signed_in_browser_is_let_in_and_another_sites_page_is_not(room, alice):
    client = Client()
    await in_thread(client.force_login, alice)
    cookie = (b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode())

    async with Socket(room.pk, headers=[cookie, (b"origin", b"http://localhost")]) as socket:
        assert (await socket.next())["type"] == "hello"

    stranger = Socket(room.pk, headers=[cookie, (b"origin", b"https://evil.example")])
    connected, _ = await stranger._link.connect(timeout=SOON_S)
    assert not connected


async def test_a_teacher_who_leaves_the_class_is_shown_out(room, alice, raised, alices_key, monkeypatch):
    monkeypatch.setattr("usability.consumers.CHECK_EVERY_S", 0.0)
    async with Socket(room.pk, alices_key) as socket:
        await socket.next("hello")
        await in_thread(ClassroomTeacher.objects.filter(classroom=room, user=alice).delete)
        await in_thread(raised)
        assert await socket.closed_with() == 4403


async def test_a_revoked_key_is_shown_out(room, alice, raised, monkeypatch):
    from gaia_site.keys import issue_key, revoke_key

    monkeypatch.setattr("usability.consumers.CHECK_EVERY_S", 0.0)
    key, secret = await in_thread(issue_key, name="a key", owner=alice, scopes=["teacher"])
    async with Socket(room.pk, secret) as socket:
        await socket.next("hello")
        await in_thread(revoke_key, key)
        await in_thread(raised)
        assert await socket.closed_with() == 4403


async def test_an_alert_for_one_teacher_alone_is_not_told_to_another(room, bob, raised, alices_key):
    async with Socket(room.pk, alices_key) as socket:
        await socket.next("hello")

        def for_bob() -> None:
            from usability.models import TeacherDashboardAlert

            alert = raised("p4")
            TeacherDashboardAlert.objects.filter(pk=alert.pk).update(teacher=bob)

        from django.db import transaction

        await in_thread(transaction.atomic(for_bob))
        shared = await in_thread(raised, "p5")
        assert (await socket.next("alert"))["alert"]["id"] == str(shared.pk)


async def test_the_rendered_card_comes_where_it_is_asked_for(room, raised, alices_key):
    async with Socket(room.pk, alices_key, "?html=1") as socket:
        await socket.next("hello")
        alert = await in_thread(raised)
        message = await socket.next("alert")

    assert str(alert.pk) in message["html"]
    assert "Bartek W." in message["html"]
