"""What `hydragen bench` hands its options to, one function a kind of benchmark."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydragen_tree.errors import InputError

if TYPE_CHECKING:
    from hydragen_bench.peers import Peer

Points = tuple[tuple[int, ...], ...]


def measure(name: str, given: Mapping[str, Any], *, on_cpu: bool) -> dict[str, Any]:
    """The figures of one benchmark, which prints its own table.

    Args:
        name: of the benchmark.
        given: its options, as the command has them.
        on_cpu: whether it does without a GPU.

    Raises:
        InputError: it needs a GPU, or an option cannot be read.
    """
    if on_cpu:
        return _measure_without_gpu(name, given)
    peer = None
    if given["against"]:
        from hydragen_bench.peers import find_peer

        peer = find_peer(given["against"], given["peer-python"])
    if name == "run":
        return _measure_runs(given, peer)
    points = _parse_points(given["points"])
    import torch

    if not torch.cuda.is_available():
        raise InputError(f"bench {name}: needs a CUDA device; `hydragen bench cpu` does not")
    if name == "attention":
        from hydragen_bench import attention

        return attention.run()
    if name == "choose":
        from hydragen_bench import choose

        return choose.run()
    from hydragen_bench import decode, tree
    from hydragen_bench.configs import Point, config_of

    if name == "tree":
        return tree.run(given["architecture"] or "codellama-7b", given["full"])
    architecture = _cut(given["architecture"] or "llama-3.1-8b", given["layers"])
    config_of(architecture)
    batches = [Point(*point) for point in points]
    if given["tensor-parallel"]:
        from hydragen_bench import rank_steps

        return rank_steps.run(architecture, given["tensor-parallel"], batches, peer)
    if given["batch-invariant"]:
        from hydragen_bench import order_cost

        return order_cost.run(architecture, batches, peer)
    return decode.run(
        architecture,
        batches,
        in_fp8=given["kv-dtype"] == "fp8",
        weights_in_fp8=given["weights"] == "fp8",
        peer=peer,
    )


def _cut(architecture: str, layers: int | None) -> str:
    return architecture if layers is None else f"{architecture}@{layers}"


def _measure_without_gpu(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    from rich.console import Console

    if name == "invariance":
        from hydragen_bench import invariance

        said = {
            "model": given["model"],
            "prompts": given["prompts"],
            "n": given["samples"],
            "max_tokens": given["max-tokens"],
            "dtype": given["dtype"],
            "batch_invariant": given["batch-invariant"],
        }
        return invariance.run(**_given(said))

    if name == "stack":
        return _measure_stack(given)
    if name == "cpu":
        from hydragen_bench import cpu

        return cpu.run(Console(), given["problem"])
    if name == "judge":
        from hydragen_bench import judge

        return judge.run(Console(), given["problem"])
    from hydragen_bench import fit

    return fit.run()


def _measure_stack(given: Mapping[str, Any]) -> dict[str, Any]:
    from hydragen_bench.stack import Asked, run
    from hydragen_tree.settings import SamplingSettings

    of_samples: dict[str, Any] = {"max_tokens": given["max-tokens"]}
    for temperature in parse_temperatures(given["temperatures"]) or ():
        of_samples["temperature"] = temperature
    said = {
        "problem": given["problem"],
        "samples": given["samples"],
        "settings": SamplingSettings(**_given(of_samples)),
    }
    return run(Asked(given["model"] or "tiny", given["stack"], given["text"], **_given(said)))


def _measure_runs(given: Mapping[str, Any], peer: "Peer | None") -> dict[str, Any]:
    from hydragen_bench.run import Asked, run

    architecture = given["architecture"]
    if given["layers"]:
        if architecture is None:
            raise InputError("is of an --architecture", setting="layers", value=given["layers"])
        architecture = _cut(architecture, given["layers"])
    said = {
        "architecture": architecture,
        "model": given["model"],
        "points": given["points"] and given["points"].split(","),
        "prompts": given["prompts"],
        "n": given["samples"],
        "temperatures": parse_temperatures(given["temperatures"]),
        "max_tokens": given["max-tokens"],
        "entropy_bits": given["entropy"],
        "mean_tokens": given["mean-tokens"],
        "repeats": given["repeats"],
        "weights": given["keep-weights"],
        "linear": given["weights"],
        "against": peer,
        "devices": given["devices"],
        "tensor_parallel": given["tensor-parallel"],
        "batch_invariant": given["batch-invariant"],
    }
    return run(Asked(**_given(said)))


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that have a value."""
    return {name: value for name, value in options.items() if value is not None}


def parse_temperatures(text: str | None) -> list[float] | None:
    """Numbers with commas between them; None: none were given.

    Raises:
        InputError: something else.
    """
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise InputError(
            "expected numbers, such as 0.8,0.2", setting="temperatures", value=text
        ) from None


def _parse_points(text: str | None) -> Points:
    """Batches from `32x1024,256x4096x512`; none from None."""
    try:
        result = tuple(tuple(map(int, part.split("x"))) for part in text.split(",")) if text else ()
    except ValueError:
        result = ((),)
    if not all(len(point) in (2, 3) and min(point) > 0 for point in result):
        raise InputError(
            "expected ROWSxPREFIX[xNEW], such as 32x1024,256x4096x512", setting="points", value=text
        )
    return result
