"""`hydragen bench decode --batch-invariant`: what one order of summation costs a decode step.

    default     milliseconds of a steady step of all rows, by the sampler's own loop
    invariant   the same in the batch-invariant mode, right behind it
    cost        how much longer that is

Two models of the same random weights lie beside each other. Each mode's step is compared with plain
torch before it is timed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hydragen_bench.configs import Point, random_model
from hydragen_bench.decode import check_points, time_tree, tokens_needed
from hydragen_bench.rig import Rig
from hydragen_bench.table import line
from hydragen_kernels.inputs import dtype_name
from hydragen_tree.trie.costs import device_name

POINTS = (Point(32, 4096), Point(128, 4096), Point(1024, 1024), Point(1024, 16384))
HEADING = line(("rows", "prefix", "new", "default", "invariant", "cost"))


@dataclass(frozen=True, slots=True)
class Row:
    """One batch; see the module.

    Attributes:
        rows: samples, each a row in the steady state.
        prefix: tokens of the shared prompt.
        new_tokens: of every sample.
        default_ms: milliseconds of a steady step.
        invariant_ms: the same in the batch-invariant mode.
    """

    rows: int
    prefix: int
    new_tokens: int
    default_ms: float
    invariant_ms: float

    def __str__(self) -> str:
        """A line of the table, under `HEADING`."""
        cost = self.invariant_ms / self.default_ms - 1.0
        sizes = f"{self.rows}", f"{self.prefix}", f"{self.new_tokens}"
        times = f"{self.default_ms:.3f}", f"{self.invariant_ms:.3f}"
        return line((*sizes, *times, f"{cost:+.1%}"))


def run(name: str = "llama-3.1-8b", points: Sequence[Point] = ()) -> dict[str, Any]:
    """Measures, prints a table and returns its figures.

    Args:
        name: of the architecture.
        points: the batches; none: `POINTS`.

    Raises:
        InputError: a batch has too few new tokens to time.
        HydragenError: our own logits are wrong.
    """
    points = points or POINTS
    check_points(points)
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
        result.append(Row(*point, 1e3 * default_s, 1e3 * invariant_s))
        print(result[-1], flush=True)
    return {"device": device, "architecture": name, "rows": [asdict(row) for row in result]}
