"""How much memory keys and values may take, and what the rest of a run needs beside them."""

import gc
import os
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from hydragen_tree.branch.prefill import TAIL_LEVELS
from hydragen_tree.errors import CapacityError, Setting
from hydragen_tree.model.fingerprint import stored_bytes
from hydragen_tree.model.loading import ModelSource
from hydragen_tree.model.states import StatePlaces

_KEPT_SHARE = 0.05  # of a GPU's free memory, for what the allocator cannot use
_STATE_COPIES = 6  # of a row's state in one layer, that torch's operations have at a time
_QUANTISED_BYTES = 9  # of a number while an input is taken to 8 bits
_FIXED_BYTES = 512 << 20  # libraries' own buffers, captured graphs
_ENTERING_SHARE = 16  # of a device's rows, one of so many is on its way into the batch at a time
USUAL_TOKENS = 256  # of a sample that is a program
_FEWEST_ROWS, _MOST_ROWS = 1024, 16384
SPARE_SLOTS = 2  # partials of a row beyond one a level, so that long keys can be split

WIDTHS = (1, 2, 4, 8)  # queries of a step for each row it may have; beyond one: drafts
MOST_QUERIES = 512  # of a step whose rows take drafts along

# Frozen tails one below the other; each costs every row below one more partial, for which a
# device keeps room.
FROZEN_LEVELS, DEVICE_FROZEN_LEVELS = 16, 4


def path_levels(
    depth: int, max_tokens: int, page_tokens: int, frozen_levels: int = FROZEN_LEVELS
) -> int:
    """Segments on a row's path at the most: `depth` of a prompt, and the tails frozen below."""
    return depth + min(frozen_levels, max_tokens // page_tokens)


def padded_rows(rows: int) -> int:
    """The number of rows of the graph that serves `rows`."""
    apart = _rows_apart(rows)
    return -(-rows // apart) * apart


def _rows_apart(rows: int) -> int:
    """By how many rows the sizes of graphs differ around `rows`.

    Few sizes, since each is captured: powers of two up to 64 rows, which all take as long, then two
    an octave, and more where a step takes longer with every row: four from 512 rows on, eight from
    2,048. Between 1,024 and 4,096 they are 256 rows apart: a step of 128 more took as long as that.
    """
    bits = (rows - 1).bit_length()
    octave = 0 if rows <= 64 else 2 if rows <= 512 else 3 if rows <= 2048 else 4
    return 1 << max(3, bits - octave)


def most_queries(rows: int, has_drafts: bool) -> int:
    """Queries of a decode step at the most: one a row; with drafts several where rows are few."""
    padded = padded_rows(rows)
    return max(padded, min(WIDTHS[-1] * padded, MOST_QUERIES)) if has_drafts else padded


def free_memory_bytes(device: torch.device) -> int:
    """Memory that a run may take: half of what a CPU can get, nearly all that a GPU has free."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # what earlier runs have freed counts as free
        return int((1 - _KEPT_SHARE) * torch.cuda.mem_get_info(device)[0])
    return available_bytes() // 2


def available_bytes(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that a process can get: what is free, what the system would give up, its own limit.

    Free pages alone say little: a machine that has been up for a while uses them to cache files.

    Args:
        proc: where Linux tells of itself.
        cgroup: where the limits of this process's control group are, as a container has them.
    """
    try:
        known = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
        available = int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no such limit: "max", or none of these files
        return available
    return min(available, max(0, limit - used))


def batch_rows(source: ModelSource, memory_bytes: int) -> int:
    """Rows of a batch on a GPU: as many as memory holds tails of a usual length for.

    Beyond some hundred rows a step's products take longer with every row. More rows still pay:
    what a step costs whatever its rows is shared by more, and fewer samples wait for others' ends.

    Args:
        source: the model.
        memory_bytes: of the card, or what a run may use of it.

    Returns:
        What a graph has, 1,024 to 16,384: a small model's steps take long enough with those.
    """
    logits = 3 * int(source.config.vocab_size) * source.dtype.itemsize
    shape = source.shape
    row = USUAL_TOKENS * shape.tail_token_bytes + 2 * shape.state_bytes + logits
    fits = int((1 - _KEPT_SHARE) * (memory_bytes - stored_bytes(source) // source.ranks)) // row
    return min(max(fits - fits % _rows_apart(fits), _FEWEST_ROWS), _MOST_ROWS)


def state_places(
    state_bytes: int, budget: int, rows: int, segments: int, depth: int, captured: bool
) -> StatePlaces:
    """Places for running states that half a budget holds.

    Args:
        state_bytes: of one sequence's states; 0: none are kept.
        budget: bytes for keys, values and states.
        rows: of the batch at the most.
        segments: of the prompts' trie.
        depth: segments on a path at the most.
        captured: a device takes the steps; where there is too little room for the smallest graph,
            the host will.

    Raises:
        CapacityError: not even those of one path and a row.
    """
    if not state_bytes:
        return StatePlaces(0, rows)
    fits = budget // 2 // state_bytes
    if fits <= depth:
        raise CapacityError(
            f"running states take {state_bytes / 2**20:.1f} MiB each, and half of ",
            Setting("memory_bytes"),
            f" has to hold {depth + 1} of them, {(depth + 1) * state_bytes / 2**20:.1f} MiB; "
            f"it is {budget / 2**21:.1f} MiB",
        )
    room = fits - min(segments, max(depth, fits // 2))
    of_rows = StatePlaces(0, max(1, min(rows, room)))
    if captured:
        sizes = sorted({padded_rows(count) for count in range(1, rows + 1)})
        forms = (StatePlaces(0, max(1, size // _ENTERING_SHARE), size) for size in sizes)
        of_rows = max((form for form in forms if form.total <= room), default=of_rows)
    return of_rows._replace(segments=min(segments, fits - of_rows.total))


def workspace_bytes(
    source: ModelSource, prefill_tokens: int, rows: int, levels: int, has_drafts: bool
) -> int:
    """What a run needs on a GPU beside weights, keys and values.

    Args:
        source: the model.
        prefill_tokens: tokens of a prefill pass at the most.
        rows: rows of the batch at the most.
        levels: segments on a row's path at the most.
        has_drafts: decode steps may take drafts along.

    Returns:
        Bytes: activations and partials of a prefill pass, logits and partials of decode steps.
    """
    if source.device.type != "cuda":
        return 0
    config, size = source.config, source.dtype.itemsize
    hidden = int(config.hidden_size)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    partial = source.shape.merge_bytes // 2
    quantised = max(hidden, inner) * _QUANTISED_BYTES if source.is_quantised else 0
    experts = _expert_numbers(config)
    prefill = prefill_tokens * (
        (6 * hidden + max(3 * inner, experts)) * size
        + quantised
        + max(levels, TAIL_LEVELS) * partial
    )
    row = 3 * int(config.vocab_size) * size + (levels + SPARE_SLOTS) * partial
    decode = most_queries(rows, has_drafts) * row
    return prefill + decode + _FIXED_BYTES


def _expert_numbers(config: PreTrainedConfig) -> int:
    """Numbers of a token between the products of its experts; none where there are no experts."""
    names = "num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k"
    choices = max((getattr(config, name, None) or 0 for name in names), default=0)
    if not choices:
        return 0
    inner = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    widest = max(inner) if isinstance(inner, list) else int(inner)
    return int(choices) * (3 * widest + int(config.hidden_size))


def kv_budget_bytes(
    source: ModelSource, prefill_tokens: int, rows: int, levels: int, has_drafts: bool
) -> int:
    """Bytes left for keys and values once the weights are loaded; never below zero.

    Args:
        source, prefill_tokens, rows, levels, has_drafts: see `workspace_bytes`.
    """
    workspace = workspace_bytes(source, prefill_tokens, rows, levels, has_drafts)
    free = max(0, free_memory_bytes(source.device) - workspace)
    return free - _states_work_bytes(source, rows, free)


def _states_work_bytes(source: ModelSource, rows: int, free: int) -> int:
    """What layers with running states need on a GPU while a step goes through them.

    Of as many rows as half of what is free will have states for.
    """
    work = _STATE_COPIES * source.shape.layer_state_bytes
    if not work or source.device.type != "cuda":
        return 0
    return min(padded_rows(rows), free // 2 // (source.shape.state_bytes + work)) * work
