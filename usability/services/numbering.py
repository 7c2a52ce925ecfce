"""The order of change within a classroom: one counter, taken with the row locked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connection

from usability.errors import NotFound

if TYPE_CHECKING:
    import uuid


def take_seqs(classroom_id: uuid.UUID, count: int = 1) -> int:
    """The first of `count` fresh numbers of the classroom; the classroom's row stays locked until commit.

    Because the row is locked, numbers become visible in their order: a reader that has seen n has seen all
    below n. Must be called within a transaction, and before any alert of the classroom is locked, so that
    two writers meet on the classroom first.
    """
    assert connection.in_atomic_block, "a number taken outside a transaction orders nothing"
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE usability_classroom SET alert_seq = alert_seq + %s WHERE id = %s RETURNING alert_seq",
            [count, classroom_id],
        )
        row = cursor.fetchone()
    if row is None:
        raise NotFound
    return row[0] - count + 1
