"""The table of problems, a row each, which the script lets a reader sort and filter."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal
from urllib.parse import quote

from hydragen_tree.passk.summary import ProblemSummary
from hydragen_tree.passk.table import shown_ks
from hydragen_tree.results.overview import Overview, TaskCounts
from hydragen_tree.results.report.markup import verdict_bar, whole

_RANKS = {"easy": "1", "medium": "2", "hard": "3"}


@dataclass(frozen=True, slots=True)
class _Column:
    """A column's head.

    Args:
        name: what stands there.
        sort: `text` and `low` are sorted upwards at first, `high` downwards.
        is_spare: it goes where there is little room.
        kind: another class of its cells.
    """

    name: str
    sort: Literal["text", "low", "high"] = "high"
    is_spare: bool = False
    kind: str = ""

    def to_html(self) -> str:
        """The cell with the button that sorts."""
        kind = f"{self.kind} spare" if self.is_spare else self.kind
        return (
            f'<th scope="col" data-sort="{self.sort}" class="{kind}"><button type="button">'
            f'{escape(self.name)}<span class="arrow" aria-hidden="true"></span></button></th>'
        )


def problem_table(overview: Overview, first_solved: Mapping[str, int | None]) -> str:
    """The table, in a region that scrolls where it is too wide.

    Args:
        overview: of the run.
        first_solved: by task id, the lowest index of a right sample.
    """
    summary = overview.summary
    summaries = {p.task_id: p for p in summary.problems} if summary else {}
    ks = shown_ks(summary, most=3) if summary and summary.overall.estimates else []
    columns = [
        _Column("problem", "text"),
        _Column("difficulty", "text", is_spare=True, kind="text"),
        _Column("accepted"),
        *(_Column(f"pass@{k:,}", is_spare=k != ks[0]) for k in ks),
        _Column("first solved", "low", is_spare=True),
        _Column("distinct", is_spare=True),
        _Column("tokens", is_spare=True),
        _Column("verdicts", kind="bar"),
    ]
    if not any(problem.difficulty for problem in summaries.values()):
        columns = [column for column in columns if column.name != "difficulty"]
    names = [column.name for column in columns]
    rows = "".join(
        _row(task, summaries.get(task.task_id), ks, names, first_solved.get(task.task_id))
        for task in overview.tasks
    )
    head = "".join(column.to_html() for column in columns)
    caption = f"{len(overview.tasks):,} problem{'s' * (len(overview.tasks) != 1)}"
    return (
        '<p class="hint">A heading sorts by its column; a name leads to its programs. '
        "<em>First solved</em> is the index of the first accepted sample, <em>distinct</em> counts "
        "different programs, <em>tokens</em> is the mean of a sample.</p>"
        '<p class="filter"><label for="filter">Filter problems</label>'
        '<input id="filter" type="search" autocomplete="off" spellcheck="false">'
        '<span id="filtered" role="status"></span></p>'
        '<div class="scroll" role="region" tabindex="0" aria-label="Table of problems">'
        f'<table id="problem-table"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(
    task: TaskCounts,
    summary: ProblemSummary | None,
    ks: list[int],
    names: list[str],
    first: int | None,
) -> str:
    mark = f'<span class="tick" aria-hidden="true">{"&#10003;" if task.accepted else ""}</span>'
    name = escape(task.task_id)
    link = escape(f"#task={quote(whole(task.task_id), safe='')}")
    values = {e.k: e.value for e in summary.curve.estimates} if summary else {}
    mean = task.tokens / task.samples
    failed = task.judged - task.accepted
    cells = [f'<th scope="row" data-value="{name}">{mark}<a href="{link}">{name}</a></th>']
    if "difficulty" in names:
        level = escape((summary.difficulty if summary else None) or "")
        rank = _RANKS.get(level, "4")
        cells.append(f'<td class="text spare" data-value="{rank}{level}">{level}</td>')
    cells += [
        _cell(task.accepted, f"{task.accepted:,}/{task.judged:,}"),
        *(_cell(values.get(k), f"{values[k]:.3f}" if k in values else "", k != ks[0]) for k in ks),
        _cell(first, "" if first is None else f"{first:,}", True),
        _cell(len(task.programs), f"{len(task.programs):,}", True),
        _cell(mean, f"{mean:.1f}" if task.tokens else "", True),
        f'<td class="bar" data-value="{task.accepted - failed}">{verdict_bar(task.verdicts)}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: float | None, text: str, is_spare: bool = False) -> str:
    spare = ' class="spare"' if is_spare else ""
    sorted_by = "" if value is None else f"{value:.9g}"
    return f'<td data-value="{sorted_by}"{spare}>{text}</td>'
