"""Benchmarks: each module prints one JSON line a figure, `{"bench", "figure", "value", "unit", "runs"}`."""
