"""Which partition of the stream a metric belongs to. Pure.

The number is a constant of the data, not of the workers: changing it needs an empty stream. All pupils of a
class share a partition, because class-wide signals and the alert budget need them in one fold with one owner;
a pupil without a class is placed by student id.
"""

from zlib import crc32

PARTITIONS = 16


def partition_of(*, classroom_id: str, student_id: str) -> int:
    """The partition, 0 to 15, of one metric; `classroom_id` is the UUID as text, "" for an unassigned pupil."""
    return crc32((classroom_id or student_id).encode()) % PARTITIONS
