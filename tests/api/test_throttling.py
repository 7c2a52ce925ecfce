"""Rate limits: exact for one process, shared by many, never a reason to close."""

from __future__ import annotations

import time

import pytest

from gaia_site import throttling
from gaia_site.throttling import Policy, allowance, take, take_async


@pytest.fixture(autouse=True)
def _window(settings, name):
    """A window of its own that does not end during the test."""
    throttling._blocks.clear()
    settings.RATE_LIMITS = {"default": (5, 3600), "hot": (30_000, 3600)}
    return


@pytest.fixture
def other_process(monkeypatch):
    """Forgets what this process holds, as another process would never have held it."""
    return throttling._blocks.clear


def test_the_quota_is_exact(name):
    subject = name("key")

    taken = [take("default", subject) for _ in range(6)]

    assert [one.is_over for one in taken] == [False] * 5 + [True]
    assert [one.remaining for one in taken] == [4, 3, 2, 1, 0, 0]


def test_processes_share_a_quota(name, other_process):
    subject = name("key")
    for _ in range(3):
        take("default", subject)

    other_process()

    assert take("default", subject).remaining == 1


def test_a_large_quota_is_taken_in_blocks_and_no_request_counts_twice(name, other_process):
    subject = name("key")

    first = [take("hot", subject).remaining for _ in range(4)]
    other_process()
    second = take("hot", subject).remaining

    assert first == [29_999, 29_998, 29_997, 29_996]
    assert second == 29_993  # the third block: two of the second were left unused


def test_a_new_window_begins_anew(name):
    rule = Policy("default", 2, 60)

    assert allowance(rule, 3, 1_000_000_019.0).is_over
    assert allowance(rule, 1, 1_000_000_020.0).remaining == 1
    assert allowance(rule, 1, 1_000_000_019.5).reset_s == 1


async def test_without_redis_each_process_counts_for_itself(name, monkeypatch):
    monkeypatch.setattr(throttling, "_redis_rests_until_s", time.monotonic() + 60)
    subject = name("key")

    taken = [await take_async("default", subject) for _ in range(6)]

    assert [one.is_over for one in taken] == [False] * 5 + [True]


def test_a_redis_that_does_not_answer_is_left_alone_for_a_while(name, monkeypatch):
    import redis

    monkeypatch.setattr(throttling, "_redis_rests_until_s", 0.0)
    monkeypatch.setattr(throttling, "_redis", lambda: redis.Redis(port=9, socket_connect_timeout=0.1))

    assert not take("default", name("key")).is_over
    assert throttling._redis_rests_until_s > time.monotonic()
