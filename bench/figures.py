"""How a benchmark reports: medians over runs, percentiles by rank, one JSON line a figure."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence


def report(bench: str, figure: str, values: Sequence[float], unit: str, **more: object) -> None:
    """Print the median of `values`, one of each run, and the runs themselves."""
    line = {
        "bench": bench,
        "figure": figure,
        "value": round(statistics.median(values), 3),
        "unit": unit,
        "runs": [round(value, 3) for value in values],
    }
    print(json.dumps(line | more), flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value with at least `share` of all at or below it (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
