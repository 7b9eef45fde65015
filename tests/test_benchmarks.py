"""Benchmarks run by hand and take minutes; what they name in texts must not rot meanwhile."""

from __future__ import annotations

from benchmarks import load_contenders, read_contenders


def test_what_is_imported_before_the_clock_starts_exists() -> None:
    load_contenders.warm()
    read_contenders.warm()
