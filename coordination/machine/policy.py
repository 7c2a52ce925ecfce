"""The numbers the rules read. They are replicated (`PolicySet`), so members cannot disagree."""

import msgspec

MOST = 10**12  # of any of these numbers
ZERO_ALLOWED = frozenset(
    {
        "affinity_bonus_ms",
        "event_ring",
        "free_handbacks",
        "lesson_bonus_ms",
        "remembered_finals",
        "remembered_idle",
        "remembered_outcomes",
        "tick_slack_ms",
    }
)


class Policy(msgspec.Struct, frozen=True, gc=False, array_like=True, kw_only=True):
    """Durations in milliseconds of the logical clock. New fields go to the end, with a default."""

    lease_ms: int = 30_000
    heartbeat_interval_ms: int = 10_000
    claim_ttl_ms: int = 600_000
    # The longest time between two ticks of the leader: what a grant made between them would lose
    # of its time when the next tick arrives. Every deadline is granted that much later.
    tick_slack_ms: int = 250
    failure_threshold: int = 3
    backoff_base_ms: int = 1_000
    backoff_max_ms: int = 300_000
    # A task outranks another of one priority less that is older by up to this time.
    priority_step_ms: int = 60_000
    # A task handed back by an orderly goodbye this often has its retries counted from then on,
    # so a task that makes its workers leave ends as well.
    free_handbacks: int = 3
    affinity_half_life_ms: int = 3_600_000
    # What a lesson's full affinity, and being in the lesson already, are worth against waiting time.
    affinity_bonus_ms: int = 120_000
    lesson_bonus_ms: int = 60_000
    # The most a tick may move the clock: while the leader stood still it could take no heartbeat
    # either, so that time counts against nobody.
    max_elapsed_ms: int = 2_000

    # Bounds.
    max_sessions: int = 20_000
    max_tasks: int = 200_000  # live tasks; beyond it rows wait in PostgreSQL
    max_lessons: int = 100_000
    max_locks: int = 100_000
    max_waiters_per_lock: int = 1_000
    max_concurrent_tasks: int = 1_000  # of one session
    max_grants: int = 100  # of one claim
    max_dependencies: int = 100  # of one task
    max_dependents: int = 10_000  # of one task
    max_affinities: int = 32  # of one session
    max_directives: int = 100  # undelivered, of one session
    max_expiries_per_tick: int = 1_000
    remembered_outcomes: int = 50_000
    remembered_finals: int = 100_000
    event_ring: int = 20_000
    max_lock_ttl_ms: int = 86_400_000
    max_lock_wait_ms: int = 600_000
    remembered_idle: int = 10_000  # outcomes of requests that changed nothing, such as empty claims

    @property
    def degraded_after_ms(self) -> int:
        """One heartbeat missed: half an interval after it was due."""
        return self.heartbeat_interval_ms * 3 // 2

    @property
    def unhealthy_after_ms(self) -> int:
        """Two heartbeats missed."""
        return self.heartbeat_interval_ms * 5 // 2

    def problems(self) -> list[str]:
        """What makes this policy unusable, in words; empty if nothing."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        found = [
            f"{name} must be {'at least 0' if name in ZERO_ALLOWED else 'positive'}, not {value}"
            for name, value in values.items()
            if value < (0 if name in ZERO_ALLOWED else 1)
        ]
        found.extend(
            f"{name} must be at most {MOST}, not {value}" for name, value in values.items() if value > MOST
        )
        if self.lease_ms <= self.heartbeat_interval_ms:
            found.append("lease_ms must be longer than heartbeat_interval_ms")
        return found
