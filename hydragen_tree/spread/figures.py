"""Figures of several runs as those of one."""

from collections.abc import Iterable
from dataclasses import fields, replace

from hydragen_tree.sample.records import RunStats

_COUNTS = [field.name for field in fields(RunStats) if field.name != "started"]


def one_after_another(before: RunStats, now: RunStats) -> RunStats:
    """Figures of two runs of one worker, of which the second may still go on."""
    return replace(
        _sum([before, now]),
        samples_live=now.samples_live,
        rows_live=now.rows_live,
        kv_bytes_peak=max(before.kv_bytes_peak, now.kv_bytes_peak),
        started=before.started or now.started,
    )


def side_by_side(workers: Iterable[RunStats], started: float) -> RunStats:
    """Figures of workers that draw at the same time; samples to draw and drawn are left to others.

    Args:
        workers: those of each.
        started: when the first of them began, by the clock of this process.
    """
    return replace(_sum(workers), samples_total=0, samples_done=0, started=started)


def _sum(parts: Iterable[RunStats]) -> RunStats:
    total = RunStats()
    for part in parts:
        for name in _COUNTS:
            setattr(total, name, getattr(total, name) + getattr(part, name))
    return total
