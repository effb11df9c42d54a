"""`hydragen bench decode --batch-invariant`: what one order of summation costs a decode step.

    default     milliseconds of a steady step of all rows, by the sampler's own loop
    invariant   the same in the batch-invariant mode, right behind it
    cost        how much longer that is
    vllm        on request: the same of vLLM's two modes, each in a process of its own, with weights
                drawn alike, see `peer_vllm.py`

Two models of the same random weights lie beside each other. Each mode's step is compared with plain
torch before it is timed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hydragen_bench import peer_vllm
from hydragen_bench.configs import Point, random_model
from hydragen_bench.decode import check_points, time_tree, tokens_needed
from hydragen_bench.peers import Peer
from hydragen_bench.rig import Rig
from hydragen_bench.table import line
from hydragen_kernels.inputs import dtype_name
from hydragen_tree.trie.costs import device_name

POINTS = (Point(32, 4096), Point(128, 4096), Point(1024, 1024), Point(1024, 16384))
_COLUMNS = ("rows", "prefix", "new", "default", "invariant", "cost", "vllm", "invariant", "cost")
HEADING = line(_COLUMNS)


@dataclass(frozen=True, slots=True)
class Row:
    """One batch; see the module.

    Attributes:
        rows: samples, each a row in the steady state.
        prefix: tokens of the shared prompt.
        new_tokens: of every sample.
        default_ms: milliseconds of a steady step.
        invariant_ms: the same in the batch-invariant mode.
        vllm_default_ms: the same of vLLM; None where it was not asked for.
        vllm_invariant_ms: likewise, in its own such mode.
    """

    rows: int
    prefix: int
    new_tokens: int
    default_ms: float
    invariant_ms: float
    vllm_default_ms: float | None = None
    vllm_invariant_ms: float | None = None

    def __str__(self) -> str:
        """A line of the table, under `HEADING`."""
        sizes = f"{self.rows}", f"{self.prefix}", f"{self.new_tokens}"
        vllm = _compared(self.vllm_default_ms, self.vllm_invariant_ms)
        return line((*sizes, *_compared(self.default_ms, self.invariant_ms), *vllm))


def _compared(default_ms: float | None, invariant_ms: float | None) -> tuple[str, str, str]:
    """Cells of two modes' steps, and of how much longer the second is."""
    if default_ms is None or invariant_ms is None:
        return "-", "-", "-"
    return f"{default_ms:.3f}", f"{invariant_ms:.3f}", f"{invariant_ms / default_ms - 1.0:+.1%}"


def run(
    name: str = "llama-3.1-8b", points: Sequence[Point] = (), peer: Peer | None = None
) -> dict[str, Any]:
    """Measures, prints a table and returns its figures.

    Args:
        name: of the architecture.
        points: the batches; none: `POINTS`.
        peer: vLLM, to measure its two modes too.

    Raises:
        InputError: a batch has too few new tokens to time.
        HydragenError: vLLM failed, or our own logits are wrong.
    """
    points = points or POINTS
    check_points(points)
    found: list[peer_vllm.Vllm] = []
    if peer is not None:  # first: it needs the memory for itself
        for mode in (False, True):
            one = peer_vllm.measure(name, points, peer, batch_invariant=mode)
            steps = [f"{'x'.join(map(str, each))} {one.step_ms(each):.3f}" for each in points]
            print(f"{one}; ms a step: {', '.join(steps)}", flush=True)
            found.append(one)
    rigs = []
    for batch_invariant in (False, True):
        model, shape = random_model(name, batch_invariant=batch_invariant)
        rigs.append(Rig(model, shape, int(model.model.config.vocab_size)))
    device = device_name(rigs[0].model.device)
    print(f"{device}; {name}, random weights in {dtype_name(rigs[0].kv_dtype)}; ms a step")
    print(HEADING, flush=True)
    result: list[Row] = []
    for point in points:
        if tokens_needed(point) > rigs[0].tokens_that_fit(point.rows):
            print(line(map(str, point)), "does not fit", flush=True)
            continue
        default_s, invariant_s = (time_tree(rig, point)[2] for rig in rigs)
        vllm_ms = [one.step_ms(point) for one in found]
        result.append(Row(*point, 1e3 * default_s, 1e3 * invariant_s, *vllm_ms))
        print(result[-1], flush=True)
    return {
        "device": device,
        "architecture": name,
        "vllm": {"version": found[0].version, "cascade": found[0].cascade} if found else None,
        "rows": [asdict(row) for row in result],
    }
