"""What the commands that judge have in common: their options, and the start of a judge."""

from typing import TYPE_CHECKING, Annotated

import typer

from hydragen_cli.console import count, note
from hydragen_tree.errors import InputError

if TYPE_CHECKING:
    from hydragen_tree.judge import Judge

_JUDGE = "Judge"
RESULTS = "Results"

Ks = Annotated[
    str | None,
    typer.Option(
        "-k",
        metavar="K,K,...",
        rich_help_panel=RESULTS,
        help="Show these k of pass@k, and write them besides log-spaced ones up to the samples "
        "there are.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        rich_help_panel=_JUDGE,
        help="Programs judged at a time, with --ray on each machine. Default: one a processor.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        rich_help_panel=_JUDGE,
        help="Judge on all machines of a Ray cluster: auto for the one of this machine or of "
        "RAY_ADDRESS, as in a submitted job; local to start one here; or an address.",
    ),
]
Sandbox = Annotated[
    str,
    typer.Option(
        "--sandbox",
        metavar="LEVEL",
        rich_help_panel=_JUDGE,
        help="auto, bubblewrap, unshare or landlock.",
    ),
]
Unsandboxed = Annotated[
    bool,
    typer.Option(
        "--unsandboxed",
        rich_help_panel=_JUDGE,
        help="Run programs with resource limits and nothing else: only those you trust.",
    ),
]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", rich_help_panel=_JUDGE, help="Neither use nor keep old verdicts."),
]
Python = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        rich_help_panel=_JUDGE,
        help="The Python that runs the programs. Default: the one that runs this command.",
    ),
]
Language = Annotated[
    str,
    typer.Option(
        "--language",
        metavar="NAME",
        rich_help_panel=_JUDGE,
        help="Of the programs whose lines have no key `language`: python, c, c++.",
    ),
]


def open_judge(
    *,
    workers: int | None,
    sandbox: str,
    unsandboxed: bool,
    cache: bool,
    python: str | None,
    quiet: bool,
    ray: str | None = None,
) -> "Judge":
    """Start a judge, and say in one line what protects the machine from the programs.

    With the address of a Ray cluster, it judges on all machines of it.

    Raises:
        InputError: an option is wrong, or no sandbox works here.
    """
    from hydragen_tree.judge import Judge

    if unsandboxed and sandbox != "auto":
        raise InputError("is the opposite of --sandbox; choose one", setting="unsandboxed")
    if not unsandboxed and sandbox == "rlimits":
        raise InputError(
            "protects nothing; say --unsandboxed to mean it", setting="sandbox", value=sandbox
        )
    level = "rlimits" if unsandboxed else sandbox
    if ray is None:
        judge = Judge(level, workers, cache=cache, python=python)
    else:
        from hydragen_tree.judge.ray_judge import RayJudge

        judge = RayJudge(ray, level, workers, cache=cache, python=python)
        note(f"{count(judge.workers, 'program')} at a time on the cluster", quiet=quiet)
    note(str(judge.isolation), quiet=quiet)
    return judge
