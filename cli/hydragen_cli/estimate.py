"""What `hydragen plan --devices N` says of a run on many devices."""

from typing import TYPE_CHECKING, Any

from hydragen_cli.console import count, duration
from hydragen_tree.units import size

if TYPE_CHECKING:
    from pathlib import Path

    from hydragen_tree.sample.sampler import Sampler
    from hydragen_tree.spread.estimate import Estimate
    from hydragen_tree.trie.outline import Outline


def estimated(
    sampler: "Sampler", outline: "Outline", devices: int, max_tokens: int, like: "Path | None"
) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Names and what is to be said about them, and the same as plain data.

    Args:
        sampler: of one worker.
        outline: of the run.
        devices: how many there are to be.
        max_tokens: of a sample.
        like: samples of an earlier run; None: measured constants alone.

    Raises:
        InputError: the devices do not make whole groups, or the earlier run tells nothing.
    """
    from dataclasses import asdict

    from hydragen_tree.errors import InputError
    from hydragen_tree.spread.estimate import estimate
    from hydragen_tree.spread.pace import Pace

    ranks = sampler.source.ranks
    if devices < 1 or devices % ranks:
        expected = f"a multiple of {ranks}" if ranks > 1 else "an integer >= 1"
        raise InputError(f"expected {expected}", setting="devices", value=devices)
    pace = Pace.of(sampler.source)
    if like is not None:
        pace = pace.like(like, sampler.fingerprint)
    found = estimate(
        outline,
        workers=devices // ranks,
        max_tokens=max_tokens,
        max_rows=sampler.max_rows,
        pace=pace,
    )
    held = outline.savings.kv_bytes + outline.tail_bytes(max_tokens)
    memory = {"weights_bytes": pace.weights, "kv_bytes": held}
    record = {
        **asdict(found),
        **memory,
        "total_s": found.total_s,
        "speed_up": found.speed_up,
        "origin": pace.origin,
    }
    return _facts(found, memory, max_tokens, like is not None, pace.origin), record


def _facts(
    found: "Estimate", memory: dict[str, int], max_tokens: int, is_known: bool, origin: str
) -> list[tuple[str, str]]:
    lengths = "as in that run" if is_known else f"if they end halfway to {max_tokens:,}"
    groups = count(found.devices, "device")
    if found.devices > found.workers:
        groups += f" in groups of {found.devices // found.workers}"
    fewest, rest = divmod(found.samples, found.workers)
    each = f"{fewest:,} or {fewest + 1:,}" if rest else f"{fewest:,}"
    return [
        ("devices", f"{groups}, a batch of {count(found.rows, 'row')} at most on each"),
        ("samples", f"{found.samples:,}, of {found.mean_tokens:,.0f} tokens {lengths}"),
        ("pieces", f"{found.pieces:,}; prompts of {found.prefill_tokens:,} tokens are computed"),
        ("shards", f"by hand, --shard 1/{found.workers} and so on: {each} samples each"),
        (
            "memory",
            f"on each device, at most {size(memory['weights_bytes'])} of weights and "
            f"{size(memory['kv_bytes'])} of keys and values",
        ),
        (
            "time",
            f"{duration(found.total_s)}, of which {duration(found.start_s)} until weights are "
            f"there; {found.speed_up:,.1f} times as fast as one",
        ),
        (
            "idle",
            f"{found.idle_share:.0%} of the devices' time: until weights are there, and in the "
            f"last {duration(found.running_out_s)}, when batches run out",
        ),
        ("by", origin),
    ]
