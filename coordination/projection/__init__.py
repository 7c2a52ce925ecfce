"""The only writer of projected rows: events of the log become rows of PostgreSQL, exactly once.

`project` takes the events that follow the watermark, `reconcile` rewrites the rows from a whole state where
events were missed. Either is one transaction that holds the watermark's row, so two projectors take turns.
"""

from coordination.projection.writer import (
    Author,
    Behind,
    Gap,
    Watermark,
    project,
    read_watermark,
    reconcile,
)

__all__ = ["Author", "Behind", "Gap", "Watermark", "project", "read_watermark", "reconcile"]
