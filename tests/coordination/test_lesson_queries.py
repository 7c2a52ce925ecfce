"""Questions about lessons, locks and affinities."""

import uuid

import pytest
from django.db import IntegrityError, transaction

from coordination import selectors
from coordination.errors import NotFound
from coordination.models import DistributedLock, Lesson, LockToken, Project, SessionAffinity
from tests.coordination import rows
from tests.coordination.rows import NOW, minutes

pytestmark = pytest.mark.django_db


@pytest.mark.operation(17)
def test_by_id_answers_one_lesson_or_none():
    wanted = rows.lesson()

    assert Lesson.objects.by_id(wanted.pk) == wanted
    with pytest.raises(Lesson.DoesNotExist):
        Lesson.objects.by_id(uuid.uuid4())


@pytest.mark.operation(18)
def test_listed_goes_by_priority_then_age():
    young, old = rows.lesson(created_at=minutes(1)), rows.lesson(created_at=NOW)
    urgent = rows.lesson(priority=3, created_at=minutes(2))

    assert list(Lesson.objects.listed()) == [urgent, old, young]


@pytest.mark.operation(19)
def test_for_project_answers_the_lessons_of_one_project():
    project = Project.objects.create(name="compiler")
    of_it = rows.lesson(project=project)
    rows.lesson()

    assert list(Lesson.objects.for_project(project.pk)) == [of_it]


@pytest.mark.operation(20)
def test_with_status_takes_known_statuses_only():
    archived = rows.lesson(status="archived")
    rows.lesson()

    assert list(Lesson.objects.with_status("archived")) == [archived]
    with pytest.raises(ValueError, match="done"):
        Lesson.objects.with_status("done")


@pytest.mark.operation(23)
def test_refresh_progress_counts_the_tasks_and_the_status_follows():
    """A caller once overwrote the counter with any number, even above the total."""
    lesson = rows.lesson(tasks_total=9, tasks_completed=1)
    rows.task(lesson=lesson, status="completed", claim_token=1)
    rows.task(lesson=lesson, status="failed", claim_token=2)
    rows.task(lesson=lesson, status="cancelled")
    pending = rows.task(lesson=lesson)

    assert Lesson.objects.refresh_progress() == 1
    lesson.refresh_from_db()
    assert (lesson.tasks_total, lesson.tasks_completed, lesson.tasks_failed) == (3, 1, 1)
    assert lesson.status == "in_progress"
    assert Lesson.objects.refresh_progress() == 0

    pending.status = "completed"
    pending.save()
    Lesson.objects.refresh_progress()
    lesson.refresh_from_db()
    assert lesson.status == "completed"


@pytest.mark.operation(79)
def test_with_progress_counts_by_status_and_the_estimate_follows_the_attempts():
    lesson = rows.lesson(tasks_total=4, tasks_completed=1)
    done = rows.task(lesson=lesson, status="completed")
    rows.attempt(done, outcome="completed", ended_at=minutes(2))
    rows.claimed_task(rows.session(), lesson=lesson)
    rows.task(lesson=lesson)
    rows.task(lesson=lesson)

    found = Lesson.objects.with_progress().get(pk=lesson.pk)
    progress = selectors.lesson_progress(lesson.pk)

    assert (found.tasks_pending, found.tasks_running, found.tasks_cancelled) == (2, 1, 0)
    assert (progress.percent, progress.eta_s) == (25.0, 3 * 120.0)
    with pytest.raises(NotFound):
        selectors.lesson_progress(uuid.uuid4())


@pytest.mark.parametrize(
    ("total", "completed", "percent"), [(0, 0, 0.0), (3, 1, 100 / 3), (2, 2, 100.0), (1, 2, 100.0)]
)
def test_progress_is_capped_and_defined_for_an_empty_lesson(total, completed, percent):
    lesson = Lesson(title="x", tasks_total=total, tasks_completed=completed)

    assert lesson.progress_percentage() == pytest.approx(percent)


# Locks


@pytest.mark.operation(42)
def test_is_locked_looks_at_the_expiry():
    rows.lock(lock_key="held", expires_at=minutes(1))
    rows.lock(lock_key="over", acquired_at=minutes(-1), expires_at=NOW)

    assert DistributedLock.objects.is_locked("held", NOW)
    assert not DistributedLock.objects.is_locked("over", NOW)
    assert not DistributedLock.objects.is_locked("free", NOW)


@pytest.mark.operation(43)
def test_owner_of_a_free_lock_is_none():
    rows.lock(lock_key="held", owner_id="me")

    assert DistributedLock.objects.owner_of("held", NOW) == "me"
    assert DistributedLock.objects.owner_of("held", minutes(2)) is None
    assert DistributedLock.objects.owner_of("free", NOW) is None


@pytest.mark.operation(44)
def test_release_expired_deletes_what_is_long_over_and_keeps_the_last_token():
    over = rows.lock(acquired_at=minutes(-9), expires_at=minutes(-5), fencing_token=7)
    LockToken.objects.create(lock_key=over.lock_key, fencing_token=7)
    held = rows.lock()

    assert DistributedLock.objects.release_expired(NOW) == 1
    assert list(DistributedLock.objects.all()) == [held]
    assert LockToken.objects.get(pk=over.lock_key).fencing_token == 7


@pytest.mark.operation(45)
def test_listed_shows_locks_by_key_expired_ones_too():
    rows.lock(lock_key="b")
    rows.lock(lock_key="a", acquired_at=minutes(-9), expires_at=minutes(-5))

    assert [lock.lock_key for lock in DistributedLock.objects.listed()] == ["a", "b"]


def test_a_lock_is_over_at_its_expiry():
    assert rows.lock(expires_at=NOW).is_expired(NOW)
    assert not rows.lock(expires_at=minutes(1)).is_expired(NOW)


# Affinities


@pytest.mark.operation(47)
def test_for_session_shows_the_best_score_first():
    session = rows.session()
    weak, strong = (rows.affinity(session, rows.lesson(), affinity_score=score) for score in (0.2, 0.9))
    rows.affinity(rows.session(), rows.lesson())

    assert list(SessionAffinity.objects.for_session(session.pk)) == [strong, weak]


@pytest.mark.operation(48)
def test_for_lesson_shows_the_best_score_first():
    lesson = rows.lesson()
    weak, strong = (rows.affinity(rows.session(), lesson, affinity_score=score) for score in (0.2, 0.9))

    assert list(SessionAffinity.objects.for_lesson(lesson.pk)) == [strong, weak]


@pytest.mark.operation(84)
def test_open_at_takes_open_windows_and_those_without():
    session = rows.session()
    without = rows.affinity(session, rows.lesson())
    inside = rows.affinity(
        session, rows.lesson(), time_window_start=NOW, time_window_end=minutes(1), affinity_score=0.5
    )
    rows.affinity(session, rows.lesson(), time_window_start=minutes(1))
    rows.affinity(session, rows.lesson(), time_window_end=NOW)

    assert list(SessionAffinity.objects.open_at(NOW)) == [without, inside]


@pytest.mark.operation(51)
def test_best_session_for_lesson_offers_available_sessions_only():
    """The best score once won whatever the session's state: dead and full sessions were offered."""
    lesson = rows.lesson()
    rows.affinity(rows.session(status="offline"), lesson, affinity_score=1.0)
    rows.affinity(rows.session(current_task_count=5, max_concurrent_tasks=5), lesson, affinity_score=1.0)
    rows.affinity(rows.session(), lesson, affinity_score=1.0, time_window_end=NOW)
    good = rows.session(session_name="good")
    rows.affinity(good, lesson, affinity_score=0.4)

    assert SessionAffinity.objects.best_session_for_lesson(lesson.pk, NOW) == good
    assert SessionAffinity.objects.best_session_for_lesson(rows.lesson().pk, NOW) is None


def test_ties_go_to_the_least_loaded_then_the_last_used_then_the_first_by_name():
    lesson = rows.lesson()
    names = {}
    for session_name, load, used in [("d", 1, None), ("c", 0, None), ("b", 0, NOW), ("a", 0, minutes(-9))]:
        names[session_name] = rows.session(session_name=session_name, current_task_count=load)
        rows.affinity(names[session_name], lesson, last_used=used)
    order = []
    while best := SessionAffinity.objects.best_session_for_lesson(lesson.pk, NOW):
        order.append(best.session_name)
        best.affinities.all().delete()

    assert order == ["b", "a", "c", "d"]


@pytest.mark.parametrize(
    "values",
    [
        {"affinity_score": 1.1},
        {"affinity_score": -0.1},
        {"time_window_start": minutes(1), "time_window_end": NOW},
    ],
    ids=str,
)
def test_the_database_refuses_an_impossible_affinity(values):
    with pytest.raises(IntegrityError), transaction.atomic():
        rows.affinity(rows.session(), rows.lesson(), **values)


def test_a_session_has_one_affinity_for_a_lesson():
    session, lesson = rows.session(), rows.lesson()
    rows.affinity(session, lesson)

    with pytest.raises(IntegrityError), transaction.atomic():
        rows.affinity(session, lesson)


def test_deleting_a_session_keeps_its_tasks_and_their_history():
    session = rows.session()
    task = rows.claimed_task(session)
    attempt = rows.attempt(task, session=session)
    rows.affinity(session, rows.lesson())

    session.delete()

    task.refresh_from_db()
    attempt.refresh_from_db()
    assert (task.claimed_by, attempt.session, SessionAffinity.objects.count()) == (None, None, 0)
