"""`hydragen bench decode --tensor-parallel N`: decode steps of a model that N devices share.

    step    milliseconds of a steady step of all rows, by the sampler's own loop on every rank
    sums    those of a step alone, two a layer, one after the other: the way that a step takes. In a
            step a sum also waits for the rank that comes last
    library the same by NCCL, or by gloo on a CPU
    one     a step of the whole model on one of the devices, in the same run, where memory holds it;
            and how many times as long that takes
    vllm    on request: tokens a second of vLLM on as many devices, with weights drawn alike,
            and how many times as many ours are, see `peer_vllm.py`

Weights are random. Ranks are processes that meet as those of a run do, with the same environment
(`rank_child.py`). Each compares a step's logits with plain torch before it is timed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from hydragen_bench import peer_vllm
from hydragen_bench.child import last_lines
from hydragen_bench.configs import Point, config_of, points_of
from hydragen_bench.decode import check_points
from hydragen_bench.peers import Peer
from hydragen_bench.table import line
from hydragen_bench.timing import bench_device, bench_dtype
from hydragen_kernels.inputs import dtype_name
from hydragen_tree.errors import HydragenError, InputError
from hydragen_tree.model.ranks import RankLostError
from hydragen_tree.model.tensor_parallel import rank_config
from hydragen_tree.spread.processes import OF_RANKS
from hydragen_tree.trie.costs import device_name

SILENCE_S = 300.0  # weights, or one batch with all that is compiled and captured for it, take less
_LAST_WORDS_S = 2.0  # in which ranks say why, once one of them has ended
_LOOK_S = 0.1
_START = (
    "import sys; sys.path[:] = sys.argv[4:]; from hydragen_bench.rank_child import main; "
    "main(sys.argv[1], int(sys.argv[2]), sys.argv[3])"
)
_HEADING = ("rows", "prefix", "new", "prefill_s", "step_ms", "tokens/s", "sums_ms", "library")
HEADING = line((*_HEADING, "one_ms", "ratio", "vllm", "ratio"))


@dataclass(frozen=True, slots=True)
class Row:
    """One batch; see the module.

    Attributes:
        rows: samples, each a row in the steady state.
        prefix: tokens of the shared prompt.
        new_tokens: of every sample.
        prefill_s: seconds of the prompt.
        step_ms: milliseconds of a steady step.
        tokens_s: tokens a second.
        sums_by: what sums up: `nccl` (on a CPU `gloo`), `symmetric memory`, or `joined`, in one
            launch with the addition and the norm that follow, which `sums_ms` has then too.
        sums_ms: milliseconds of a step's sums, by that.
        library_ms: the same by NCCL, or gloo.
        alone_ms: milliseconds of a step on one device; None: its memory does not hold that.
        ratio: how many times as fast as one device the ranks are together; likewise.
        vllm_tokens_s: tokens a second of vLLM; None: it was not asked for.
    """

    rows: int
    prefix: int
    new_tokens: int
    prefill_s: float
    step_ms: float
    tokens_s: float
    sums_by: str
    sums_ms: float
    library_ms: float
    alone_ms: float | None
    ratio: float | None
    vllm_tokens_s: float | None = None

    def __str__(self) -> str:
        """A line of the table, under `HEADING`, and what sums up."""
        sizes = f"{self.rows}", f"{self.prefix}", f"{self.new_tokens}"
        times = f"{self.prefill_s:.2f}", f"{self.step_ms:.2f}", f"{self.tokens_s:.0f}"
        sums = f"{self.sums_ms:.2f}", f"{self.library_ms:.2f}"
        alone = (
            ("-", "-") if self.alone_ms is None else (f"{self.alone_ms:.2f}", f"{self.ratio:.2f}")
        )
        peer = ("-", "-")
        if self.vllm_tokens_s is not None:
            peer = f"{self.vllm_tokens_s:.0f}", f"{self.tokens_s / self.vllm_tokens_s:.2f}"
        return f"{line((*sizes, *times, *sums, *alone, *peer))}  sums by {self.sums_by}"


def run(
    name: str, ranks: int, points: Sequence[Point] = (), peer: Peer | None = None
) -> dict[str, Any]:
    """Measures, prints a table and returns its figures.

    The table is printed as ours are measured, and again with the peer beside once it has run.

    Args:
        name: of the architecture, see `config_of`.
        ranks: devices that have it together: the first of the machine.
        points: the batches; none: those of the architecture.
        peer: vLLM, to measure that too.

    Raises:
        InputError: a batch has too few new tokens to time, the architecture is not split so, or
            there are too few devices or layers.
        HydragenError: a rank or vLLM failed, or a rank says nothing any more.
    """
    points = points or points_of(name)
    check_points(points)
    config, whole = config_of(name), name.partition("@")[0]
    rank_config(whole, config, ranks)  # refuses what is not split
    if torch.cuda.is_available() and torch.cuda.device_count() < ranks:
        raise InputError(
            f"there are {torch.cuda.device_count()} devices here",
            setting="tensor_parallel",
            value=ranks,
        )
    device, all_layers = device_name(bench_device()), config_of(whole).num_hidden_layers
    made, dtype = config.num_hidden_layers, dtype_name(bench_dtype())
    cut = f"{made} of its {all_layers} layers" if made != all_layers else f"all {made} layers"
    print(f"{ranks} x {device}; {whole}, {cut}, random weights in {dtype}")
    print(HEADING, flush=True)
    job = {"config": json.loads(config.to_json_string(use_diff=False)), "points": points}
    alone = [*_answers({**job, "size": 1})]
    result: list[Row] = []
    for point, one, found in zip(points, alone, _answers({**job, "size": ranks}), strict=True):
        if found is None:
            print(line(map(str, point)), "does not fit", flush=True)
            continue
        alone_ms = None if one is None else one["step_ms"]
        ratio = None if alone_ms is None else alone_ms / found["step_ms"]
        speed = 1e3 * point.rows / found["step_ms"]
        result.append(Row(*point, **found, tokens_s=speed, alone_ms=alone_ms, ratio=ratio))
        print(result[-1], flush=True)
    vllm = None
    if peer is not None and result:
        held = [Point(row.rows, row.prefix, row.new_tokens) for row in result]
        vllm = peer_vllm.measure(name, held, peer, ranks)
        result = [
            replace(row, vllm_tokens_s=vllm.tokens_s[point])
            for row, point in zip(result, held, strict=True)
        ]
        print("\n".join(map(str, (vllm, HEADING, *result))), flush=True)
    return {
        "device": device,
        "architecture": whole,
        "ranks": ranks,
        "layers": made,
        "all_layers": all_layers,
        "weights": dtype,
        "vllm": None if vllm is None else {"version": vllm.version, "cascade": vllm.cascade},
        "rows": [asdict(row) for row in result],
    }


def _answers(job: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """What ranks find for each point, as they find it; None: memory does not hold it."""
    size: int = job["size"]
    with TemporaryDirectory(prefix="hydragen-") as folder, ExitStack() as ends:
        logs = [Path(folder, f"rank-{rank}.log") for rank in range(size)]
        asked, answered = Path(folder, "job"), Path(folder, "answer")
        asked.write_text(json.dumps({**job, "meeting": str(Path(folder, "ranks"))}))
        answered.touch()
        processes = []
        for rank, log in enumerate(logs):
            command = [sys.executable, "-c", _START, str(asked), str(rank), str(answered)]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*command, *sys.path],
                    stdin=subprocess.PIPE,  # its end is theirs, however we end
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**environ, **OF_RANKS},
                )
            ends.enter_context(process)
            ends.callback(process.kill)
            processes.append(process)
        for answer in _lines(answered, processes, logs):
            if answer != {"is_made": True}:
                yield answer


def _lines(
    answered: Path, processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]
) -> Iterator[dict[str, Any] | None]:
    """The lines of a file as they come, until all processes have ended well.

    Raises:
        HydragenError: one has failed, or nothing comes.
    """
    last = time.monotonic()
    with answered.open(encoding="utf-8") as file:
        while True:
            codes = [process.poll() for process in processes]
            if any(codes):  # neither running nor 0
                time.sleep(_LAST_WORDS_S)
                raise _failure([process.poll() for process in processes], logs)
            has_ended = None not in codes
            for text in file:  # each is written at once
                last = time.monotonic()
                yield json.loads(text)
            if has_ended:
                return
            if time.monotonic() - last > SILENCE_S:
                said = "\n".join(
                    f"rank {rank}: {text}"
                    for rank, log in enumerate(logs)
                    for text in last_lines(log)
                )
                raise HydragenError(
                    f"{len(processes)} ranks have said nothing for {SILENCE_S:.0f} s and were "
                    f"ended:\n{said}".rstrip(":\n")
                )
            time.sleep(_LOOK_S)


def _failure(codes: Sequence[int | None], logs: Sequence[Path]) -> HydragenError:
    """Why ranks have failed: that another does not answer is no reason, if there is one."""
    failed = {rank: last_lines(logs[rank]) for rank, code in enumerate(codes) if code}
    lost = RankLostError.__name__
    own = {rank: said for rank, said in failed.items() if not any(lost in text for text in said)}
    rank, said = next(iter((own or failed).items()))
    code = codes[rank]
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
    return HydragenError("\n".join([f"rank {rank} of {len(codes)} failed, {how}:", *said]))
