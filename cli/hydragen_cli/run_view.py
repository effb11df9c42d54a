"""How far `hydragen run` has come: a bar, figures and the problems on a terminal, else lines."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from hydragen_cli.console import console, count, duration
from hydragen_cli.progress import Progress
from hydragen_tree.errors import one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from hydragen_tree.sample.records import RunStats
    from hydragen_tree.sample.writer import SampleCounts
    from hydragen_tree.solving.board import Board, ProblemCounts

_WIDEST = 100
_NARROW = 60  # characters; below, figures stand below each other and less is said
_AROUND = 7  # lines of the view that are no problems
_BEHIND = 100  # samples that wait for the judge before its speed says when it is done


class RunView(Progress):
    """Shows sampling and judging while entered.

    Args:
        stats: reads the sampler's figures of now.
        tally: counts of what stands in the file, earlier sessions included.
        board: what became of every problem.
        total: how many samples the whole run has, at the most.
        n: samples of a problem, at the most.
        in_rounds: a problem may be ended before that; the sampler knows of what it was given.
        budget_s: seconds after which sampling ends.
        quiet: show nothing.
    """

    def __init__(
        self,
        stats: "Callable[[], RunStats]",
        tally: "SampleCounts",
        board: "Board",
        total: "Callable[[], int]",
        n: int,
        *,
        in_rounds: bool = False,
        budget_s: float | None = None,
        quiet: bool,
    ) -> None:
        super().__init__(stats, tally, to_stdout=False, quiet=quiet)
        self._board, self._total, self._n = board, total, n
        self._in_rounds, self._budget_s = in_rounds, budget_s
        self._began, self._judged_before = time.perf_counter(), board.judged
        self._told = {p.task_id for p in board.problems.values() if p.accepted}

    def _lines(self) -> Iterable[str]:
        """Problems solved since the last time, and the figures."""
        for problem in list(self._board.problems.values()):
            if problem.accepted and problem.task_id not in self._told:
                self._told.add(problem.task_id)
                yield f"{problem.task_id}: solved, by sample {problem.first_accepted}"
        yield ", ".join([f"{self._board.drawn:,}/{self._total():,} samples", *self._figures()])

    def _figures(self) -> list[str]:
        """Verdicts, speed, rows against samples, what the trie saves, and time left."""
        board, stats = self._board, self._stats()
        figures = [
            f"{board.judged:,} judged",
            f"{board.solved:,} of {count(len(board.problems), 'problem')} solved",
        ]
        if not stats.tokens_sampled:
            waits = "computing the prompts" if stats.samples_total else "loading the model"
            drawn_all = board.drawn == self._total()
            return [*figures, *([] if drawn_all else [waits]), *self._left(None)]
        if stats.samples_done < stats.samples_total:
            saved = 1 - stats.rows_computed / stats.tokens_sampled
            figures += [
                f"{stats.tokens_sampled / stats.elapsed_s:,.0f} tokens/s",
                f"{count(stats.rows_live, 'row')} for {count(stats.samples_live, 'sample')}",
                f"{saved:.0%} of rows saved",
            ]
        return [*figures, *self._left(stats)]

    def _left(self, stats: "RunStats | None") -> list[str]:
        """Time left: of the sampler, or of a judge that has fallen behind."""
        board, total = self._board, self._total()
        passed_s = time.perf_counter() - self._began
        rest_s = 0.0
        if stats is not None and self._tally.samples:
            rest_s = self._rest_of_rounds_s(stats) if self._in_rounds else self._rest_s(stats)
        judged = board.judged - self._judged_before
        if judged and board.drawn - board.judged >= min(_BEHIND, total - board.drawn + 1):
            rest_s = max(rest_s, (total - board.judged) * passed_s / judged)
        if self._budget_s is not None:
            rest_s = min(rest_s, max(self._budget_s - passed_s, 0.0))
        at_most = "at most " if self._in_rounds else ""
        return [f"{at_most}{duration(rest_s)} left"] if rest_s else []

    def _rest_of_rounds_s(self, stats: "RunStats") -> float:
        """Seconds left if no problem is ended any more; the sampler knows of a part alone."""
        usual = self._tally.tokens / self._tally.samples
        missing = (self._total() - self._board.drawn) * usual
        return missing / stats.tokens_sampled * stats.elapsed_s

    def _render(self) -> "RenderableType":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        terminal = console()
        width, drawn = min(terminal.width, _WIDEST), self._board.drawn
        bar = Table.grid(padding=(0, 1), expand=True)
        bar.width = width
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        samples = "" if width < _NARROW else " samples"
        bar.add_row(
            ProgressBar(total=self._total(), completed=drawn),
            f"{drawn:,}/{self._total():,}{samples}",
        )
        figures = Text(_wrapped(self._figures(), width), style="dim", no_wrap=True)
        return Group(bar, figures, *self._problems(width, max(1, terminal.height - _AROUND)))

    def _problems(self, width: int, room: int) -> "Iterable[RenderableType]":
        """The problems that fit, those that are worked on first."""
        from rich.text import Text

        problems = list(self._board.problems.values())
        by_need = sorted(problems, key=self._is_done)[:room]
        shown = {problem.task_id for problem in by_need}
        yield _table([p for p in problems if p.task_id in shown], width)
        hidden = [problem for problem in problems if problem.task_id not in shown]
        if hidden:
            solved = sum(problem.accepted > 0 for problem in hidden)
            yield Text(f" and {len(hidden):,} more, {solved:,} of them solved", style="dim")

    def _is_done(self, problem: "ProblemCounts") -> int:
        """0 while a problem is worked on, 1 when nothing is left of it, 2 before it begins."""
        if not problem.drawn:
            return 2
        return int(problem.drawn >= self._n and problem.judged >= problem.drawn)


def _table(problems: "list[ProblemCounts]", width: int) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), show_edge=False, header_style="dim")
    table.add_column("problem", no_wrap=True, overflow="ellipsis", max_width=max(8, width - 27))
    for name in ("tried", "right", "first at"):
        table.add_column(name, justify="right", no_wrap=True)
    for problem in problems:
        first = problem.first_accepted
        table.add_row(
            one_line(problem.task_id),
            f"{problem.judged:,}",
            f"{problem.accepted:,}",
            "" if first is None else f"{first:,}",
            style="green" if problem.accepted else None,
        )
    return table


def _wrapped(parts: list[str], width: int) -> str:
    """Parts with commas between them, broken between parts where a line is full."""
    lines = [""]
    for number, part in enumerate(parts):
        text = part + ("," if number + 1 < len(parts) else "")
        if lines[-1] and len(lines[-1]) + 1 + len(text) > width:
            lines.append(text)
        else:
            lines[-1] = f"{lines[-1]} {text}".strip()
    return "\n".join(lines)
