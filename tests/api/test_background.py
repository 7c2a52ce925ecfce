"""Database work from the event loop, folded."""

from __future__ import annotations

import asyncio

import pytest

from gaia_site.background import Folded


async def test_what_arrives_together_is_one_call():
    calls = []

    def double(items):
        calls.append(list(items))
        return [2 * item for item in items]

    folded = Folded(double)

    results = await asyncio.gather(*(folded(item) for item in range(10)))

    assert results == [2 * item for item in range(10)]
    assert len(calls) <= 2


async def test_one_bad_item_is_refused_alone():
    def halve(items):
        return [10 // item for item in items]

    folded = Folded(halve)

    results = await asyncio.gather(*(folded(item) for item in (1, 0, 5)), return_exceptions=True)

    assert (results[0], results[2]) == (10, 2)
    assert isinstance(results[1], ZeroDivisionError)


async def test_a_group_has_a_bound():
    sizes = []

    def note(items):
        sizes.append(len(items))
        return items

    folded = Folded(note, limit=3)

    await asyncio.gather(*(folded(item) for item in range(10)))

    assert max(sizes) <= 3


async def test_who_gave_up_is_left_out():
    folded = Folded(lambda items: items)
    waiting = asyncio.ensure_future(folded(1))
    await asyncio.sleep(0)
    waiting.cancel()

    assert await folded(2) == 2
    with pytest.raises(asyncio.CancelledError):
        await waiting


def test_it_serves_one_event_loop_after_another():
    folded = Folded(lambda items: items)

    assert [asyncio.run(folded(item)) for item in range(3)] == [0, 1, 2]
