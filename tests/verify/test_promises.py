"""Each promise of the API, with a history that keeps it and histories that break it."""

from collections.abc import Callable

import pytest

from tests.verify.histories import Script, seen


def good() -> Script:
    """A whole life: a lock changes hands, a session is taken over, a task expires once and is completed."""
    script = Script()
    script.write(0, 1, 1)
    script.read(2, 3, 1)
    script.acquire(0, 0.1, "a", 10)
    script.renew(1, 1.1, "a", 10)
    script.release(2, 2.1, "a", 10)
    script.acquire(2.2, 2.3, "b", 20)
    script.acquire(5.6, 5.7, "a", 30)
    script.release(5.8, 5.9, "b", 20, status=412)
    script.register(0, 0.1, 11)
    script.beat(2, 2.1, 11)
    script.register(9, 9.1, 40)
    script.beat(9.2, 9.3, 11, status=409)
    script.worker()
    script.enqueue(0, 0.1, "T", "t")
    script.claim(1, 1.1, "t", 15, 1)
    script.claim(5, 5.1, "t", 25, 2)
    script.complete(5.2, 5.3, "t", 15, status=412)
    script.complete(5.4, 5.5, "t", 25)
    for index, kind, subject in [
        (10, "lock_acquired", "l"),
        (11, "session_registered", "s"),
        (12, "task_enqueued", "t"),
        (15, "task_claimed", "t"),
        (16, "lock_released", "l"),
        (20, "lock_acquired", "l"),
        (22, "task_requeued", "t"),
        (25, "task_claimed", "t"),
        (26, "task_completed", "t"),
        (28, "lock_expired", "l"),
        (30, "lock_acquired", "l"),
        (40, "session_registered", "s"),
    ]:
        script.event(index, kind, subject)
    return script


FINAL = {"t": {"status": "completed", "idempotency_key": "T"}}


def test_a_good_life_keeps_every_promise() -> None:
    script = good()
    watched = [seen("w1", one.index, one.kind, one.subject) for one in script.events]

    results = script.results(final=FINAL, is_drained=True, events=script.events, watched=watched)

    assert {name for name, result in results.items() if not result.held} == set()
    assert all(result.looked_at for result in results.values())


# --- by hand, one defect each --------------------------------------------------------------------

Defect = Callable[[Script], None]
DEFECTS: list[tuple[str, Defect]] = []


def breaks(check: str) -> Callable[[Defect], Defect]:
    def note(defect: Defect) -> Defect:
        DEFECTS.append((check, defect))
        return defect

    return note


@breaks("registers")
def stale_read(script: Script) -> None:
    script.write(4, 5, 2)
    script.read(6, 7, 1)


@breaks("registers")
def lost_write(script: Script) -> None:
    script.write(4, 5, 2)
    script.read(6, 7, None)


@breaks("registers")
def read_of_a_refused_write(script: Script) -> None:
    script.write(4, 5, 2, status=409)
    script.read(6, 7, 2)


@breaks("lock tokens")
def one_token_two_owners(script: Script) -> None:
    script.acquire(20, 20.1, "c", 50)
    script.acquire(25, 25.1, "d", 50)


@breaks("lock tokens")
def lock_token_goes_back(script: Script) -> None:
    script.acquire(20, 20.1, "c", 50)
    script.acquire(25, 25.1, "d", 49)


@breaks("lock tokens")
def renewed_with_an_overtaken_token(script: Script) -> None:
    script.renew(6, 6.1, "b", 20)


@breaks("lock tokens")
def released_with_an_overtaken_token(script: Script) -> None:
    script.release(6, 6.1, "b", 20)


@breaks("lock tokens")
def renewed_after_its_release(script: Script) -> None:
    script.acquire(20, 20.1, "c", 50)
    script.release(20.2, 20.3, "c", 50)
    script.renew(20.4, 20.5, "c", 50)


@breaks("lock holds")
def two_holders_at_once(script: Script) -> None:
    script.acquire(20, 20.1, "c", 50)
    script.acquire(21, 21.1, "d", 60)


@breaks("lock holds")
def taken_although_renewed(script: Script) -> None:
    script.acquire(20, 20.1, "c", 50)
    script.renew(22.5, 22.6, "c", 50)
    script.acquire(24, 24.1, "d", 60)


@breaks("lock holds")
def live_hold_refused(script: Script) -> None:
    script.acquire(20, 20.1, "c", 50)
    script.renew(21, 21.1, "c", 50, status=412)


@breaks("lease tokens")
def lease_token_goes_back(script: Script) -> None:
    script.register(20, 20.1, 39)


@breaks("lease tokens")
def heartbeat_with_an_overtaken_lease(script: Script) -> None:
    script.beat(9.5, 9.6, 11)


@breaks("lease tokens")
def heartbeat_with_a_lease_nobody_was_granted(script: Script) -> None:
    script.beat(9.5, 9.6, 41)


@breaks("leases last")
def live_session_taken_over(script: Script) -> None:
    script.beat(14, 14.1, 40)
    script.register(16, 16.1, 50)


@breaks("leases last")
def live_session_told_it_expired(script: Script) -> None:
    script.beat(14, 14.1, 40)
    script.beat(16, 16.1, 40, status=409)


@breaks("enqueued once")
def one_key_two_tasks(script: Script) -> None:
    script.enqueue(6, 6.1, "T", "t2")


@breaks("enqueued once")
def claimed_under_another_id(script: Script) -> None:
    script.claim(20, 20.1, "x", 60, 1, name="T")


@breaks("enqueued once")
def task_from_nowhere(script: Script) -> None:
    script.claim(20, 20.1, "x", 60, 1)


@breaks("claims")
def claim_with_two_winners(script: Script) -> None:
    script.claim(5, 5.1, "t", 25, 2, lease=2)


@breaks("claims")
def claim_token_goes_back(script: Script) -> None:
    script.enqueue(20, 20.1, "U", "u")
    script.claim(21, 21.1, "u", 60, 1)
    script.claim(30, 30.1, "u", 59, 2)


@breaks("claims")
def attempt_counted_twice(script: Script) -> None:
    script.enqueue(20, 20.1, "U", "u")
    script.claim(21, 21.1, "u", 60, 1)
    script.claim(30, 30.1, "u", 70, 1)


@breaks("completions")
def completed_twice(script: Script) -> None:
    script.complete(6, 6.1, "t", 15)


@breaks("completions")
def completed_with_a_stale_token(script: Script) -> None:
    script.enqueue(20, 20.1, "U", "u")
    script.claim(21, 21.1, "u", 60, 1)
    script.claim(26, 26.1, "u", 70, 2)
    script.complete(27, 27.1, "u", 60)


@breaks("completions")
def claimed_after_its_completion(script: Script) -> None:
    script.claim(20, 20.1, "t", 60, 3)


@breaks("completions")
def completed_with_a_token_nobody_was_granted(script: Script) -> None:
    script.enqueue(20, 20.1, "U", "u")
    script.claim(21, 21.1, "u", 60, 1)
    script.complete(22, 22.1, "u", 61)


@breaks("claims last")
def live_claim_refused(script: Script) -> None:
    script.enqueue(20, 20.1, "U", "u")
    script.claim(21, 21.1, "u", 60, 1)
    script.complete(22, 22.1, "u", 60, status=412)


@breaks("claims last")
def live_claim_given_away(script: Script) -> None:
    script.enqueue(20, 20.1, "U", "u")
    script.claim(21, 21.1, "u", 60, 1)
    script.claim(22, 22.1, "u", 70, 2)


@breaks("record")
def a_process_of_two_minds(script: Script) -> None:
    first = script.operations[0]
    script.operations.append(
        type(first)(
            process=first.process,
            op="register.read",
            key="other",
            input={},
            output={"status": 200, "value": None},
            invoke_ns=first.invoke_ns + 1,
            return_ns=first.invoke_ns + 2,
        )
    )


@pytest.mark.parametrize(("check", "defect"), DEFECTS, ids=lambda one: getattr(one, "__name__", one))
def test_a_defect_is_found(check: str, defect: Defect) -> None:
    script = good()
    defect(script)

    assert check in script.broken()


def test_there_are_enough_defects() -> None:
    assert len(DEFECTS) >= 25


# --- the end of a run ----------------------------------------------------------------------------


def test_a_lost_task_is_found() -> None:
    assert "nothing lost" in good().broken(final={}, is_drained=True)


def test_a_lost_completion_is_found() -> None:
    final = {"t": {"status": "pending", "idempotency_key": "T"}}

    assert "nothing lost" in good().broken(final=final)


def test_a_task_that_nobody_can_work_off_is_found() -> None:
    script = good()
    script.enqueue(20, 20.1, "U", "u")
    final = FINAL | {"u": {"status": "failed", "idempotency_key": "U"}}

    assert "nothing lost" in script.broken(final=final, is_drained=True)


def test_a_task_that_is_there_twice_is_found() -> None:
    final = FINAL | {"t2": {"status": "completed", "idempotency_key": "T"}}

    assert "nothing lost" in good().broken(final=final)


def test_an_unknown_enqueue_may_be_there_or_not() -> None:
    script = good()
    script.enqueue(20, 20.1, "U", None)

    assert script.broken(final=FINAL, is_drained=True) == set()


# --- events --------------------------------------------------------------------------------------


def watched_by(script: Script, *places: int) -> set[str]:
    told = [
        seen("w1", script.events[n].index, script.events[n].kind, script.events[n].subject) for n in places
    ]
    return script.broken(events=script.events, watched=told)


def test_a_watcher_that_missed_an_event_is_found() -> None:
    assert "watchers" in watched_by(good(), 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11)


def test_a_watcher_that_was_told_in_another_order_is_found() -> None:
    assert "watchers" in watched_by(good(), 0, 1, 3, 2, 4, 5, 6, 7, 8, 9, 10, 11)


def test_a_watcher_that_was_told_twice_is_found() -> None:
    assert "watchers" in watched_by(good(), 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)


def test_a_watcher_that_was_told_something_else_is_found() -> None:
    script = good()
    told = [seen("w1", one.index, one.kind, one.subject, digest="other") for one in script.events]

    assert "watchers" in script.broken(events=script.events, watched=told)


def test_a_watcher_that_was_told_too_much_is_found() -> None:
    script = good()
    told = [seen("w1", one.index, one.kind, one.subject) for one in script.events]
    told.insert(1, seen("w1", 10, "lock_acquired", "l", sequence=9))

    assert "watchers" in script.broken(events=script.events, watched=told)


@pytest.mark.parametrize("place", range(12))
def test_an_acknowledged_change_that_is_not_in_the_history_is_found(place: int) -> None:
    script = good()
    gone = script.events.pop(place)
    told_by_nobody = {"task_requeued", "lock_expired", "lock_released"}

    broken = script.broken(events=script.events)

    assert ("facts" in broken) is (gone.kind not in told_by_nobody or gone.kind.startswith("lock_"))


def test_a_history_in_which_a_completed_task_goes_on_is_found() -> None:
    script = good()
    script.event(50, "task_completed", "t")

    assert "facts" in script.broken(events=script.events)


# --- what must not be called broken --------------------------------------------------------------


def test_an_unknown_release_may_have_freed_the_lock() -> None:
    script = good()
    script.acquire(20, 20.1, "c", 50)
    script.release(20.5, 21, "c", 50, status=None)
    script.acquire(21, 21.1, "d", 60)

    assert script.broken() == set()


def test_an_unknown_acquisition_may_have_moved_the_token() -> None:
    script = good()
    script.acquire(20, 20.1, "c", None)
    script.acquire(24, 24.1, "d", 60)

    assert script.broken() == set()


def test_overlapping_calls_may_have_happened_in_either_order() -> None:
    script = good()
    script.acquire(20, 21, "c", 60)
    script.acquire(20.5, 20.6, "d", 50, ttl_s=0.1)

    assert script.broken() == set()


def test_a_claim_of_a_session_that_fell_silent_may_end_early() -> None:
    script = good()
    script.enqueue(38, 38.1, "U", "u", ttl_s=30.0)
    script.claim(39, 39.1, "u", 60, 1)
    script.claim(50, 50.1, "u", 70, 2, lease=2)

    assert script.broken() == set()


def test_slack_forgives_a_little() -> None:
    script = good()
    script.acquire(20, 20.1, "c", 50)
    script.acquire(22.9, 22.95, "d", 60)

    assert script.broken() == {"lock holds"}
    assert script.broken(slack_s=0.5) == set()
