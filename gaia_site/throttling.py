"""Rate limits by caller, shared by all web processes through Redis.

A fixed window: one counter a caller, policy and window. A process takes its share of a large quota in small
blocks, so that most requests ask nobody; what is left of a block when its window ends is lost. Where Redis is absent or does not answer, each
process counts for itself, so that a lost broker loosens the limit and never closes the API.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import redis
import redis.asyncio
from django.conf import settings

from gaia_site.problems import Problem

log = logging.getLogger("gaia.api")

REDIS_TIMEOUT_S = 0.25
REDIS_PAUSE_S = 2.0
LOCAL_SIZE = 50_000
BLOCKS_A_WINDOW = 10_000
"""A block is this part of the quota, at least one request."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`quota` requests in each window of `window_s` seconds; `name` stands in the headers."""

    name: str
    quota: int
    window_s: int


DEFAULTS = {
    "default": Policy("default", 60_000, 60),
    "hot": Policy("hot", 1_200_000, 60),
    "anonymous": Policy("anonymous", 6_000, 60),
}


def policy(name: str) -> Policy:
    """The policy of that name; `settings.RATE_LIMITS = {name: (quota, window_s)}` overrides the defaults."""
    override = getattr(settings, "RATE_LIMITS", {}).get(name)
    return Policy(name, *override) if override else DEFAULTS[name]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a caller has left in the present window."""

    policy: Policy
    remaining: int
    reset_s: int
    is_over: bool

    @property
    def headers(self) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` as in draft-ietf-httpapi-ratelimit-headers-10."""
        name, quota, window_s = self.policy.name, self.policy.quota, self.policy.window_s
        return {
            "RateLimit-Policy": f'"{name}";q={quota};w={window_s}',
            "RateLimit": f'"{name}";r={self.remaining};t={self.reset_s}',
        }

    def check(self) -> None:
        """Raises rate-limited with the time to wait where the quota is spent."""
        if self.is_over:
            raise Problem(
                "rate-limited",
                f"{self.policy.quota} requests per {self.policy.window_s} s are allowed.",
                headers=self.headers,
                retry_after_s=self.reset_s,
            )


def allowance(policy: Policy, count: int, now_s: float) -> Allowance:
    """The allowance after `count` requests in the window around `now_s` (unix seconds)."""
    reset_s = max(1, policy.window_s - int(now_s) % policy.window_s)
    return Allowance(policy, max(0, policy.quota - count), reset_s, count > policy.quota)


@dataclass(slots=True)
class LocalCounters:
    """Counts of this process alone, bounded."""

    counts: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def add(self, name: str) -> int:
        """One more for `name`; the count now."""
        count = self.counts.pop(name, 0) + 1
        self.counts[name] = count
        if len(self.counts) > LOCAL_SIZE:
            self.counts.popitem(last=False)
        return count


@dataclass(frozen=True, slots=True)
class Block:
    """Requests of one counter that this process may still let pass; `count` is the last of them."""

    left: int
    count: int


_local = LocalCounters()
_blocks: OrderedDict[str, Block] = OrderedDict()
_redis_rests_until_s = 0.0


def take(name: str, subject: str) -> Allowance:
    """Counts one request of `subject` under the policy `name`."""
    rule, now_s = policy(name), time.time()
    counter = _counter(rule, subject, now_s)
    known = _from_block(counter)
    if known is not None:
        return allowance(rule, known, now_s)
    if _has_redis():
        try:
            pipeline = _redis().pipeline(transaction=False)
            pipeline.incrby(counter, _block_size(rule))
            pipeline.expire(counter, rule.window_s + 1)
            return allowance(rule, _open_block(counter, rule, pipeline.execute()[0]), now_s)
        except (redis.RedisError, OSError) as error:
            _rest(error)
    return allowance(rule, _local.add(counter), now_s)


async def take_async(name: str, subject: str) -> Allowance:
    """:func:`take` for the event loop."""
    rule, now_s = policy(name), time.time()
    counter = _counter(rule, subject, now_s)
    known = _from_block(counter)
    if known is not None:
        return allowance(rule, known, now_s)
    if _has_redis():
        try:
            pipeline = _redis_async().pipeline(transaction=False)
            pipeline.incrby(counter, _block_size(rule))
            pipeline.expire(counter, rule.window_s + 1)
            return allowance(rule, _open_block(counter, rule, (await pipeline.execute())[0]), now_s)
        except (redis.RedisError, OSError) as error:
            _rest(error)
    return allowance(rule, _local.add(counter), now_s)


def _block_size(rule: Policy) -> int:
    return max(1, rule.quota // BLOCKS_A_WINDOW)


def _from_block(counter: str) -> int | None:
    """The number of this request where the block at hand covers it."""
    block = _blocks.get(counter)
    if block is None or not block.left:
        return None
    _blocks[counter] = Block(block.left - 1, block.count)
    return block.count - block.left + 1


def _open_block(counter: str, rule: Policy, count: int) -> int:
    """Keeps the rest of the block that ends at `count`; the number of the first request in it."""
    left = _block_size(rule) - 1
    _blocks[counter] = Block(left, count)
    _blocks.move_to_end(counter)
    while len(_blocks) > LOCAL_SIZE:
        _blocks.popitem(last=False)
    return count - left


def _counter(rule: Policy, subject: str, now_s: float) -> str:
    return f"gaia:rate:{rule.name}:{subject}:{int(now_s) // rule.window_s}"


def _has_redis() -> bool:
    return settings.GAIA.redis_url is not None and time.monotonic() >= _redis_rests_until_s


def _rest(error: Exception) -> None:
    """After a failure, does without Redis for a moment instead of waiting for it at every request."""
    global _redis_rests_until_s  # noqa: PLW0603  one memory a process
    _redis_rests_until_s = time.monotonic() + REDIS_PAUSE_S
    log.warning("rate_limit_counts_locally", extra={"reason": type(error).__name__})


def _options() -> dict[str, Any]:
    return {
        "socket_timeout": REDIS_TIMEOUT_S,
        "socket_connect_timeout": REDIS_TIMEOUT_S,
        "max_connections": 50,
    }


@cache
def _redis() -> redis.Redis:
    return redis.Redis.from_url(settings.GAIA.redis_url, **_options())


@cache
def _redis_async() -> redis.asyncio.Redis:
    """One client for the process: daphne runs a single event loop."""
    return redis.asyncio.Redis.from_url(settings.GAIA.redis_url, **_options())
