"""The smallest machine that shows what happened to a payload, and a caller that waits."""

import threading
from collections.abc import Callable

import msgspec

from coordination.log.contract import Answer, Outcome


class Items:
    """A list of payloads; the result of a payload is its place in it."""

    def __init__(self) -> None:
        self.items: list[bytes] = []

    def apply(self, payload: bytes) -> object:
        self.items.append(payload)
        return len(self.items)

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.items)

    def restore(self, data: bytes) -> None:
        self.items = msgspec.msgpack.decode(data, type=list[bytes])


def outcome_of(ask: Callable[[Answer], None], limit_s: float = 10.0) -> Outcome:
    """Call `ask` with a callback and wait for the one outcome."""
    outcomes: list[Outcome] = []
    is_done = threading.Event()

    def answer(outcome: Outcome) -> None:
        outcomes.append(outcome)
        is_done.set()

    ask(answer)
    assert is_done.wait(limit_s), "no outcome came"
    return outcomes[0]
