"""One rank of `hydragen bench decode --tensor-parallel`, a process of its own.

Its job is a file with a JSON object:

    config   of the whole model, as transformers writes it
    size     ranks that have it together; 1: one process, which has it whole
    meeting  a path where they find each other
    points   [[rows, prefix, new tokens], ...]

Rank 0 adds lines of JSON to the file of answers: {"is_made": true} once there are weights, then one
for each point, {"prefill_s", "step_ms", "sums_by", "sums_ms", "library_ms"}, the last three not
with one rank; null: memory does not hold it.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from hydragen_bench.configs import Point
from hydragen_bench.decode import time_tree, tokens_needed
from hydragen_bench.rig import SPARE_BYTES, Rig
from hydragen_bench.timing import bench_device, bench_dtype, seconds
from hydragen_tree.branch.budget import free_memory_bytes, padded_rows
from hydragen_tree.errors import CapacityError, HydragenError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.creation import without_weights
from hydragen_tree.model.joint_layers import joined_sums
from hydragen_tree.model.joint_sums import TURNS
from hydragen_tree.model.peer_sums import sum_ms
from hydragen_tree.model.ranks import Ranks
from hydragen_tree.model.states import with_states
from hydragen_tree.model.support import kv_shape
from hydragen_tree.model.tensor_parallel import rank_config, split_dim, sum_rows

_ON_CPU_REPEATS = 4


def main(job: str, rank: int, answers: str) -> None:
    """Times all points, and ends the process.

    Args:
        job: the file.
        rank: which one this is.
        answers: the file that rank 0 adds to.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asked = json.loads(Path(job).read_text(encoding="utf-8"))
    try:
        with Path(answers).open("a", buffering=1, encoding="utf-8") as file:  # line by line
            _measure(asked, Ranks(rank, asked["size"], asked["meeting"]), file.write)
    except HydragenError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # as a worker ends: Gloo's threads now and then abort a process that winds up


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _measure(asked: dict[str, Any], ranks: Ranks, write: Callable[[str], object]) -> None:
    device = bench_device()
    if device.type == "cuda":
        device = torch.device("cuda", ranks.rank)
        torch.cuda.set_device(device)
    ranks.join(device)

    def say(answer: dict[str, Any] | None) -> None:
        if ranks.leads:
            write(f"{json.dumps(answer)}\n")

    points = [Point(*point) for point in asked["points"]]
    fields = dict(asked["config"])
    kind = fields.pop("model_type")
    whole = AutoConfig.for_model(kind, **fields)
    config = rank_config(kind, whole, ranks.size)
    if not _fits(config, ranks, device):
        if ranks.size > 1:
            raise CapacityError(
                f"the weights do not fit into {ranks.size} devices; choose fewer --layers"
            )
        for _ in points:
            say(None)
        return
    rig = _rig(kind, config, ranks, device)
    say({"is_made": True})
    for point in points:
        is_small = tokens_needed(point) <= rig.tokens_that_fit(point.rows)
        if not ranks.least(int(is_small)):
            say(None)
            continue
        prefill_s, _, step_s = time_tree(rig, point)
        found = {"prefill_s": prefill_s, "step_ms": 1e3 * step_s}
        say({**found, **(_sums(rig.model, ranks, point.rows) if ranks.size > 1 else {})})


def _fits(config: PreTrainedConfig, ranks: Ranks, device: torch.device) -> bool:
    weights = sum(weight.numel() for weight in without_weights(config).parameters())
    free = free_memory_bytes(device) - SPARE_BYTES
    return bool(ranks.least(int(weights * bench_dtype().itemsize < free)))


def _rig(kind: str, config: PreTrainedConfig, ranks: Ranks, device: torch.device) -> Rig:
    """A rank's part of random weights: what ranks have whole is the same on all of them."""
    torch.manual_seed(ranks.rank)
    with device:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=bench_dtype())
    if ranks.size > 1:
        for name, weight in model.named_parameters():
            if split_dim(model, name) is None:
                dist.broadcast(weight.data, 0)
        sum_rows(model, ranks)
    tree = TreeModel(model, ranks=ranks)
    shape = with_states(kv_shape(kind, config, bench_dtype()), tree.state_kinds)
    return Rig(tree, shape, int(config.vocab_size))


@torch.inference_mode()
def _sums(tree: TreeModel, ranks: Ranks, rows: int) -> dict[str, Any]:
    """Milliseconds of a step's sums, one after the other, and by what."""
    model = tree.model
    x = torch.zeros(padded_rows(rows), model.config.hidden_size, device=model.device)
    x = x.to(model.dtype)
    count = 2 * model.config.num_hidden_layers
    library_ms = count * _sum_ms(_by_library, x)
    by, own_ms = ranks.sums_by(x), library_ms
    joint = ranks.joint
    if joint is not None and joined_sums(model) and joint.takes(len(x), x.shape[1], x.dtype):
        from hydragen_kernels.layer_forms import NormForm

        weight = torch.ones_like(x[0])

        def in_turns(x: Tensor) -> Tensor:
            for turn in range(TURNS):
                total, _ = joint.add(turn, x, x, weight, 1e-5, NormForm.ROUNDED)
            return total

        by, own_ms = "joined", count / TURNS * _sum_ms(in_turns, x)
    elif by == "symmetric memory":
        own_ms = count * _sum_ms(ranks.sum_up, x)
    return {"sums_by": by, "sums_ms": own_ms, "library_ms": library_ms}


def _by_library(x: Tensor) -> Tensor:
    dist.all_reduce(x)
    return x


def _sum_ms(way: Callable[[Tensor], Tensor], x: Tensor) -> float:
    if x.is_cuda:
        return sum_ms(way, x)
    way(x)
    return 1e3 * seconds(lambda: [way(x) for _ in range(_ON_CPU_REPEATS)]) / _ON_CPU_REPEATS
