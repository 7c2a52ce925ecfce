"""How web reaches a node: commands out, outcomes back, whichever node answers.

`NodeClient` is for threads (views, services, management commands), `AsyncNodeClient` for the event loop of
a hot route; it folds commands that arrive together into one post. Both repeat a request at the next node
with the same request ids, so a command is never applied twice; what has no request id and may have been
applied ends as OutcomeUnknown. A node that is silent for a moment is looked at, and left if it hangs.
"""

import asyncio
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import urllib3

from coordination.errors import NotAvailable, NotFound, OutcomeUnknown, RejectedError
from coordination.log import protocol
from coordination.log.contract import CONFLICT, MISSING
from coordination.log.links import CONNECT_TIMEOUT_S, LOOK_PATH, LOOK_TIMEOUT_S, SILENT_S, Links
from coordination.machine.commands import AnyCommand, SessionHeartbeat, Tick
from coordination.machine.outcomes import Accepted, Rejected

DEADLINE_S = 10.0
ATTEMPT_TIMEOUT_S = 6.0
PAUSE_S = 0.05
CONNECTIONS_MAX = 64

FOLD_COMMANDS_MAX = 2_000
POSTS_IN_FLIGHT_MAX = 2
"""One is on its way while the next gathers: more would only mean smaller posts."""
COMMANDS_WAITING_MAX = 20_000

_REPEATABLE_WITHOUT_ID = (SessionHeartbeat,)
"""Applied twice these come to the same: a heartbeat renews a lease from the moment it is applied."""

Outcomes = list[Accepted | Rejected]


class _Silent(OutcomeUnknown):
    """The connection stands and nothing comes."""


class _Nodes:
    """The known addresses; starts with the one that answered last."""

    def __init__(self, urls: Sequence[str]) -> None:
        if not urls:
            raise ValueError("no node is known: set CLUSTER_NODE_URLS")
        self.urls = tuple(url.rstrip("/") for url in urls)
        self._preferred = 0

    def in_turn(self) -> "itertools.cycle[str]":
        first = self._preferred
        return itertools.cycle(self.urls[first:] + self.urls[:first])

    def prefer(self, url: str) -> None:
        self._preferred = self.urls.index(url)


def _may_repeat(commands: Sequence[AnyCommand]) -> bool:
    return all(
        (command.request_id or isinstance(command, _REPEATABLE_WITHOUT_ID)) and not isinstance(command, Tick)
        for command in commands
    )


class NodeClient:
    """The synchronous client; one per process, safe in threads."""

    def __init__(self, urls: Sequence[str], secret: str) -> None:
        self._nodes = _Nodes(urls)
        self._key = protocol.derive_key(secret)
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS_MAX, block=False, retries=False)

    def submit(
        self, commands: Sequence[AnyCommand], *, wait_s: float = 0.0, deadline_s: float = DEADLINE_S
    ) -> Outcomes:
        """One outcome a command, in order.

        `wait_s` lets a single claim or lock request wait for its turn. Raises NotAvailable (certainly not
        applied) or OutcomeUnknown (may have been, or may still be).
        """
        if not commands:
            return []
        body = protocol.encode(protocol.Submit(list(commands), round(wait_s * 1000)))
        may_repeat = _may_repeat(commands)
        answer = self._ask(
            "POST",
            "/commands",
            body,
            wait_s=wait_s,
            deadline_s=deadline_s,
            may_repeat=may_repeat,
            may_leave=may_repeat,
        )
        return protocol.decode_submitted(answer).outcomes

    def status(self) -> dict[str, Any]:
        """What the node that answers believes: `MemberStatus` and the machine's and projection's revision."""
        return protocol.decode_plain(self._ask("GET", "/status", may_leave=True))

    def status_of_each(self, timeout_s: float = 1.0) -> dict[str, dict[str, Any] | None]:
        """The status of every known node by its address; None for one that does not answer."""
        found: dict[str, dict[str, Any] | None] = {}
        for url in self._nodes.urls:
            try:
                found[url] = protocol.decode_plain(self._ask_one(url, "GET", "/status", b"", timeout_s))
            except (NotAvailable, OutcomeUnknown):
                found[url] = None
        return found

    def read_index(self, deadline_s: float = DEADLINE_S) -> int:
        """The revision that covers every write acknowledged before this call (linearizable)."""
        answer = self._ask("GET", "/read-index", deadline_s=deadline_s, may_leave=True)
        return protocol.decode_read_index(answer).revision

    def explain(self, task_id: str) -> dict[str, Any] | None:
        """Why a task is or is not assigned; None where the machine does not hold it."""
        answer = self._ask("GET", f"/explain/{task_id}", none_at_404=True)
        return protocol.decode_plain(answer) if answer else None

    def state(self) -> bytes:
        """The machine's whole state as a snapshot, for backup."""
        return self._ask("GET", "/state", deadline_s=60.0, attempt_s=60.0)

    def transfer(self, node_id: str) -> None:
        """Hand leadership to a member. Only the leader can, so each node is asked until one does."""
        failures = []
        for url in self._nodes.urls:
            try:
                self._ask_one(url, "POST", f"/transfer/{node_id}", b"", ATTEMPT_TIMEOUT_S)
            except (NotAvailable, OutcomeUnknown) as failure:
                failures.append(f"{url}: {failure.detail}")
            else:
                return
        raise NotAvailable("; ".join(failures))

    def add_member(self, node_id: str, address: str, deadline_s: float = DEADLINE_S) -> None:
        """Take a member in. Raises as `remove_member`."""
        body = protocol.encode(protocol.NewMember(node_id, address))
        self._change("POST", "/members", body, deadline_s)

    def remove_member(self, node_id: str, deadline_s: float = DEADLINE_S) -> None:
        """Send a member away.

        Raises NotFound, RejectedError (as things stand it cannot be done), NotAvailable (nobody leads, or another
        change was under way all the time), OutcomeUnknown (repeat it).
        """
        self._change("DELETE", f"/members/{node_id}", b"", deadline_s)

    def snapshot(self) -> list[dict[str, Any]]:
        """Have every node that answers take a snapshot; what each said. Raises NotAvailable if none did."""
        found, failures = [], []
        for url in self._nodes.urls:
            try:
                found.append(protocol.decode_plain(self._ask_one(url, "POST", "/snapshot", b"", 5.0)))
            except (NotAvailable, OutcomeUnknown) as failure:
                failures.append(f"{url}: {failure.detail}")
        if not found:
            raise NotAvailable("; ".join(failures))
        return found

    def _change(self, method: str, path: str, body: bytes, deadline_s: float) -> None:
        """Ask each node until the leader does it, and again while it is busy or hands over."""
        ends_s = time.monotonic() + deadline_s
        reasons: deque[str] = deque(maxlen=len(self._nodes.urls))
        for url in self._nodes.in_turn():
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                break
            try:
                answer = protocol.decode_changed(
                    self._ask_one(url, method, path, body, min(left_s, ATTEMPT_TIMEOUT_S + 1.0))
                )
            except NotAvailable as failure:
                reasons.append(f"{url}: {failure.detail}")
            else:
                if not answer.code:
                    return
                if answer.code == MISSING:
                    raise NotFound("member", path.rpartition("/")[2])
                if answer.code == CONFLICT:
                    raise RejectedError("conflict", answer.reason)
                reasons.append(f"{url}: {answer.reason}")
            time.sleep(min(PAUSE_S, max(0.0, ends_s - time.monotonic())))
        raise NotAvailable("; ".join(reasons) or "no answer in time")

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        wait_s: float = 0.0,
        deadline_s: float = DEADLINE_S,
        attempt_s: float = ATTEMPT_TIMEOUT_S,
        may_repeat: bool = True,
        may_leave: bool = False,
        none_at_404: bool = False,
    ) -> bytes:
        ends_s = time.monotonic() + deadline_s + wait_s
        was_unknown = False
        reasons: deque[str] = deque(maxlen=len(self._nodes.urls))
        for url in self._nodes.in_turn():
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                break
            try:
                ask = self._ask_or_leave if may_leave else self._ask_one
                answer = ask(
                    url, method, path, body, min(left_s, attempt_s + wait_s), none_at_404=none_at_404
                )
            except NotAvailable as failure:
                reasons.append(f"{url}: {failure.detail}")
            except OutcomeUnknown as failure:
                was_unknown = True
                reasons.append(f"{url}: {failure.detail}")
                if not may_repeat:
                    break
            else:
                self._nodes.prefer(url)
                return answer
            time.sleep(min(PAUSE_S, max(0.0, ends_s - time.monotonic())))
        failure_kind = OutcomeUnknown if was_unknown else NotAvailable
        raise failure_kind("; ".join(reasons) or "no answer in time")

    def _ask_or_leave(
        self, url: str, method: str, path: str, body: bytes, timeout_s: float, *, none_at_404: bool = False
    ) -> bytes:
        """What the node answers; raises as soon as it is known to hang. One that is only slow is asked a second time,
        which is as safe as asking another. A long poll would lose its turn by that: so its node is looked at before.
        """
        if timeout_s > ATTEMPT_TIMEOUT_S:
            if not self._is_there(url):
                raise NotAvailable("it hangs, and was not asked")
        elif timeout_s > SILENT_S:
            try:
                return self._ask_one(url, method, path, body, SILENT_S, none_at_404=none_at_404)
            except _Silent:
                if not self._is_there(url):
                    raise
                timeout_s -= SILENT_S
        return self._ask_one(url, method, path, body, timeout_s, none_at_404=none_at_404)

    def _is_there(self, url: str) -> bool:
        """Whether the node answers anything at all."""
        try:
            self._pool.request("GET", url + LOOK_PATH, timeout=urllib3.Timeout(LOOK_TIMEOUT_S))
        except urllib3.exceptions.HTTPError:
            return False
        return True

    def _ask_one(
        self, url: str, method: str, path: str, body: bytes, timeout_s: float, *, none_at_404: bool = False
    ) -> bytes:
        signature = protocol.sign(self._key, method, path, body, time.time_ns() // 1_000_000)
        timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), read=timeout_s)
        try:
            response = self._pool.request(
                method, url + path, body=body or None, headers={"Authorization": signature}, timeout=timeout
            )
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as error:
            raise NotAvailable(f"cannot connect ({type(error).__name__})") from error
        except urllib3.exceptions.ReadTimeoutError as error:
            raise _Silent("no answer (ReadTimeoutError)") from error
        except urllib3.exceptions.HTTPError as error:
            raise OutcomeUnknown(f"no answer ({type(error).__name__})") from error
        if none_at_404 and response.status == 404:
            return b""
        return _checked(response.status, response.data)


def _checked(status: int, body: bytes) -> bytes:
    """The body of a good answer; raises what a refusal means."""
    if status == 200:
        return body
    if status == 503:
        refusal = protocol.decode_refusal(body)
        raise OutcomeUnknown(refusal.reason) if refusal.unknown else NotAvailable(refusal.reason)
    text = body[:200].decode(errors="replace")
    if status in (400, 401, 404, 413):
        raise NotAvailable(f"the node answered {status}: {text}")
    raise OutcomeUnknown(f"the node answered {status}: {text}")


_Unit = tuple[Sequence[AnyCommand], "asyncio.Future[Outcomes]"]


class _Lane:
    """Commands that wait for a post, and how many posts of this lane are on their way."""

    def __init__(self, posts_max: int) -> None:
        self.units: deque[_Unit] = deque()
        self.posts_max = posts_max
        self.posts = 0


def _folded(waiting: deque[_Unit]) -> list[_Unit]:
    """The units of the next post, taken from the front, at least one.

    Units are folded only with their like, so one that may not be repeated spoils no other's retry.
    """
    units = [waiting.popleft()]
    may_repeat = _may_repeat(units[0][0])
    size = len(units[0][0])
    while waiting and size + len(waiting[0][0]) <= FOLD_COMMANDS_MAX:
        if _may_repeat(waiting[0][0]) is not may_repeat:
            break
        units.append(waiting.popleft())
        size += len(units[-1][0])
    return units


class AsyncNodeClient:
    """The client of one event loop. Commands that arrive while posts are on their way share the next one."""

    def __init__(self, urls: Sequence[str], secret: str) -> None:
        self._nodes = _Nodes(urls)
        self._key = protocol.derive_key(secret)
        self._links = Links()
        self._lanes = (_Lane(POSTS_IN_FLIGHT_MAX), _Lane(1))
        self._waiting = 0
        self._posts: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close the connections; what is on its way ends as unknown."""
        for post in tuple(self._posts):
            post.cancel()
        self._links.close()

    async def submit(
        self, commands: Sequence[AnyCommand], *, wait_s: float = 0.0, deadline_s: float = DEADLINE_S
    ) -> Outcomes:
        """As `NodeClient.submit`."""
        if not commands:
            return []
        if wait_s > 0:
            return await self._post(commands, wait_s=wait_s, deadline_s=deadline_s)
        if self._waiting + len(commands) > COMMANDS_WAITING_MAX:
            raise NotAvailable(f"{self._waiting} commands wait already")
        answer: asyncio.Future[Outcomes] = asyncio.get_running_loop().create_future()
        # A node gathers heartbeats for a while: other commands must not wait behind their post.
        lane = self._lanes[all(isinstance(command, SessionHeartbeat) for command in commands)]
        lane.units.append((commands, answer))
        self._waiting += len(commands)
        try:
            self._start_post(lane)
            return await answer
        finally:
            self._waiting -= len(commands)

    async def status(self) -> dict[str, Any]:
        """As `NodeClient.status`."""
        return protocol.decode_plain(await self._ask("GET", "/status", b"", may_repeat=True))

    async def read_index(self, deadline_s: float = DEADLINE_S) -> int:
        """As `NodeClient.read_index`."""
        answer = await self._ask("GET", "/read-index", b"", may_repeat=True, deadline_s=deadline_s)
        return protocol.decode_read_index(answer).revision

    def _start_post(self, lane: "_Lane") -> None:
        if lane.posts < lane.posts_max:
            lane.posts += 1
            post = asyncio.get_running_loop().create_task(self._post_waiting(lane))
            self._posts.add(post)
            post.add_done_callback(self._posts.discard)

    async def _post_waiting(self, lane: "_Lane") -> None:
        try:
            await asyncio.sleep(0)  # let everything that is ready in this turn of the loop join
            while lane.units:
                await self._answer(_folded(lane.units))
        finally:
            lane.posts -= 1

    async def _answer(self, units: "list[_Unit]") -> None:
        commands = [command for unit, _ in units for command in unit]
        try:
            outcomes = iter(await self._post(commands, wait_s=0.0, deadline_s=DEADLINE_S))
        except (NotAvailable, OutcomeUnknown) as failure:
            for _, answer in units:
                if not answer.done():
                    answer.set_exception(failure)
            return
        except asyncio.CancelledError:
            for _, answer in units:
                if not answer.done():
                    answer.set_exception(OutcomeUnknown("the client was closed"))
            raise
        for unit, answer in units:
            taken = [next(outcomes) for _ in unit]
            if not answer.done():
                answer.set_result(taken)

    async def _post(self, commands: Sequence[AnyCommand], *, wait_s: float, deadline_s: float) -> Outcomes:
        body = protocol.encode(protocol.Submit(list(commands), round(wait_s * 1000)))
        answer = await self._ask(
            "POST",
            "/commands",
            body,
            wait_s=wait_s,
            deadline_s=deadline_s,
            may_repeat=_may_repeat(commands),
        )
        return protocol.decode_submitted(answer).outcomes

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        may_repeat: bool,
        wait_s: float = 0.0,
        deadline_s: float = DEADLINE_S,
    ) -> bytes:
        ends_s = time.monotonic() + deadline_s + wait_s
        was_unknown = False
        reasons: deque[str] = deque(maxlen=len(self._nodes.urls))
        for url in self._nodes.in_turn():
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                break
            try:
                answer = await self._ask_one(
                    url, method, path, body, min(left_s, ATTEMPT_TIMEOUT_S + wait_s), may_leave=may_repeat
                )
            except NotAvailable as failure:
                reasons.append(f"{url}: {failure.detail}")
            except OutcomeUnknown as failure:
                was_unknown = True
                reasons.append(f"{url}: {failure.detail}")
                if not may_repeat:
                    break
            else:
                self._nodes.prefer(url)
                return answer
            await asyncio.sleep(min(PAUSE_S, max(0.0, ends_s - time.monotonic())))
        failure_kind = OutcomeUnknown if was_unknown else NotAvailable
        raise failure_kind("; ".join(reasons) or "no answer in time")

    async def _ask_one(
        self, url: str, method: str, path: str, body: bytes, timeout_s: float, *, may_leave: bool
    ) -> bytes:
        signature = protocol.sign(self._key, method, path, body, time.time_ns() // 1_000_000)
        return _checked(
            *await self._links.ask(url, method, path, signature, body, timeout_s, may_leave=may_leave)
        )


_guard = threading.Lock()


@functools.cache
def _client_of(urls: tuple[str, ...], secret: str) -> NodeClient:
    return NodeClient(urls, secret)


def node_client() -> NodeClient:
    """This process's client of the configured nodes."""
    from django.conf import settings  # noqa: PLC0415  the rest of this module needs no Django

    settings.GAIA.require("CLUSTER_SECRET")
    with _guard:
        return _client_of(tuple(settings.GAIA.cluster_node_urls), settings.GAIA.cluster_secret)


_async_clients: dict[asyncio.AbstractEventLoop, AsyncNodeClient] = {}


def async_node_client() -> AsyncNodeClient:
    """The running event loop's client of the configured nodes."""
    from django.conf import settings  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    client = _async_clients.get(loop)
    if client is None:
        settings.GAIA.require("CLUSTER_SECRET")
        for closed in [known for known in _async_clients if known.is_closed()]:
            del _async_clients[closed]
        client = AsyncNodeClient(tuple(settings.GAIA.cluster_node_urls), settings.GAIA.cluster_secret)
        _async_clients[loop] = client
    return client


async def close_async_node_client() -> None:
    """Close the running event loop's client, if it has one: before the loop ends."""
    client = _async_clients.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.close()
