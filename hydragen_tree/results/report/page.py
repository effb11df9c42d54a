"""The page: parts in their order, with style sheet and script inside it.

Style sheet and script are named to the browser by their digests, and nothing else may be loaded or
run (Content-Security-Policy). What samples say stands in the page as escaped text, or as JSON that
the script puts into text nodes.
"""

import base64
import hashlib
import json
from datetime import UTC, datetime
from html import escape
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from hydragen_tree.errors import OutputError
from hydragen_tree.files import replacing
from hydragen_tree.passk.problem_tally import by_frequency
from hydragen_tree.passk.summary import Curve, ProblemSummary, Summary
from hydragen_tree.passk.table import remarks, shown_ks
from hydragen_tree.results.overview import Overview
from hydragen_tree.results.report.accounting import Figures, accounting, settings
from hydragen_tree.results.report.curve import MOST_LINES, curve_svg
from hydragen_tree.results.report.drawn import DrawnTask, Gathering
from hydragen_tree.results.report.markup import (
    duration,
    facts,
    table,
    tile,
    verdict_legend,
    whole,
)
from hydragen_tree.results.report.problems import problem_table
from hydragen_tree.results.report.program_tree import program_tree
from hydragen_tree.results.results import Results

_MOST_PROGRAMS = 100_000  # kept of a run while it is read, at about a kilobyte each
_ROOM_BYTES = 2_500_000  # of all trees
_ROOM_OF_ONE = 400_000  # of a tree; about 1,300 programs
_SECTIONS = (
    ("curve", "pass@k"),
    ("problems", "Problems"),
    ("programs", "Programs"),
    ("cost", "Time and tokens"),
    ("settings", "Settings"),
)


def write_report(results: Results, path: Path) -> None:
    """Writes a run as one page of HTML, in place of what was there.

    Args:
        results: a run, judged or not, complete or not.
        path: the file.

    Raises:
        InputError: the run cannot be read.
        OutputError: the page cannot be written.
    """
    page = report_html(results)
    try:
        with replacing(path) as scratch:
            # Half characters, which a model can draw, are none of UTF-8's.
            scratch.write_bytes(page.encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def report_html(results: Results) -> str:
    """The page as text.

    Raises:
        InputError: the run cannot be read.
    """
    gathering = Gathering(_MOST_PROGRAMS)
    overview = Overview.of(gathering.watch(results.samples()))
    drawn = gathering.tasks
    style, script = (_part(f"page.{ending}") for ending in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    name = _name(results)
    links = "".join(f'<li><a href="#{id_}">{title}</a></li>' for id_, title in _SECTIONS)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(name)} - Hydragen report</title><style>{style}</style></head><body>"
        '<a class="skip" href="#main">Skip to the figures</a>'
        f"{_header(results, name)}"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main id="main" tabindex="-1">'
        f"{_glance(results, overview)}"
        f"{_section('curve', 'pass@k', _curve(results, overview))}"
        f"{_section('problems', 'Problems', _problems(overview, drawn))}"
        f"{_section('programs', 'Programs', _PROGRAMS)}"
        f"{_section('cost', 'Time and tokens', accounting(results.manifest))}"
        f"{_section('settings', 'Settings', settings(results.manifest))}"
        f"</main>{_footer(results)}"
        f'<script type="application/json" id="data">{_data(results, overview, drawn)}</script>'
        f"<script>{script}</script></body></html>\n"
    )


_PROGRAMS = (
    '<div id="reader"><noscript><p>The trees of programs are drawn by a script, which this browser '
    "does not run.</p></noscript></div>"
)


def _part(name: str) -> str:
    return (resources("hydragen_tree.results.report") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _name(results: Results) -> str:
    """What the run is called: its folder, where its file bears the name that all have."""
    path = results.files.name
    return path.resolve().parent.name if path.stem in ("samples", "verdicts") else path.stem


def _section(id_: str, title: str, content: str) -> str:
    heading = f'<h2 id="{id_}-title">{title}</h2>'
    return f'<section id="{id_}" aria-labelledby="{id_}-title">{heading}{content}</section>'


def _header(results: Results, name: str) -> str:
    manifest, said = results.manifest, []
    if manifest is not None:
        model = manifest.model
        said = [
            f"{model.get('name')}, {model.get('dtype')} on {model.get('device')}",
            f"n {'up to' if manifest.stopping else '='} {manifest.n:,}",
            *(
                f"{key.replace('_', ' ')} {manifest.settings[key]}"
                for key in ("temperature", "seed")
                if key in manifest.settings
            ),
        ]
        if manifest.sessions:
            said.append(str(manifest.sessions[0].get("started", ""))[:10])
    items = "".join(f"<li>{escape(item)}</li>" for item in said)
    about = f'<ul class="about">{items}</ul>' if said else ""
    return f'<header><p class="kind">Hydragen run</p><h1>{escape(name)}</h1>{about}</header>'


def _glance(results: Results, overview: Overview) -> str:
    counts, manifest, tiles = overview.to_json(), results.manifest, []
    if overview.judged:
        tiles.append(tile("Problems solved", f"{overview.solved:,}", f"of {counts['problems']:,}"))
    else:
        tiles.append(tile("Problems", f"{counts['problems']:,}", "not judged yet"))
    if overview.summary is not None and (estimates := overview.summary.overall.estimates):
        for e in dict.fromkeys((estimates[0], estimates[-1])):
            interval = f"{e.low:.3f} to {e.high:.3f}"
            tiles.append(tile(f"pass@{e.k:,}", f"{e.value:.3f}", interval))
    more = f"{counts['distinct_programs']:,} distinct"
    if manifest is not None and (rest := manifest.n_samples - overview.samples) > 0:
        is_needed = manifest.n_missing(overview.samples) > 0
        more = f"{rest:,} {'missing' if is_needed else 'not needed'}"
    tiles.append(tile("Samples", f"{overview.samples:,}", more))
    if overview.judged:
        rest = overview.samples - overview.judged
        more = f"{rest:,} not judged yet" if rest else f"of {overview.judged:,} judged"
        tiles.append(tile("Accepted", f"{overview.accepted:,}", more))
    if counts["tokens"]:
        speed = manifest.speed if manifest else None
        more = f"{speed.tokens_a_second:,.0f} a second" if speed else ""
        tiles.append(tile("Tokens drawn", f"{counts['tokens']:,}", more))
        if speed:
            spared = Figures(manifest).rows_spared
            more = "" if spared is None else f"{spared:.0%} of rows spared"
            tiles.append(tile("Sampling took", duration(speed.elapsed_s), more))
    return (
        '<section aria-labelledby="glance-title"><h2 id="glance-title" class="unseen">At a glance'
        f'</h2><dl class="tiles">{"".join(tiles)}</dl></section>'
    )


def _curve(results: Results, overview: Overview) -> str:
    summary = overview.summary
    if summary is None or not summary.overall.estimates:
        name = escape(str(results.files.name))
        why = "" if summary else f" <code>hydragen-eval {name} -o verdicts.jsonl</code> judges it."
        return f"<p>There is nothing to estimate pass@k from.{why}</p>"
    lines = sum(bool(problem.curve.estimates) for problem in summary.problems)
    thin = "; a thin line is one problem" if 1 < lines <= MOST_LINES else ""
    caption = f"The mean over problems with its 95 % interval{thin}."
    notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(summary))
    figures = [
        [f"{e.k:,}", f"{e.value:.4f}", f"{e.low:.4f}", f"{e.high:.4f}"]
        for e in summary.overall.estimates
    ]
    return (
        f"<figure>{curve_svg(summary, 880, 340, 'wide')}{curve_svg(summary, 340, 300, 'narrow')}"
        f'<figcaption>{caption}</figcaption></figure><ul class="notes">{notes}</ul>'
        f"<details><summary>The curve in numbers</summary>"
        f"{table('pass@k over all problems', ['k', 'pass@k', 'from', 'to'], figures)}</details>"
        f"{_groups(summary)}"
    )


def _groups(summary: Summary) -> str:
    """pass@k by difficulty and by prompt variant, where there are several."""
    groups: list[tuple[str, Curve]] = []
    if len(summary.by_difficulty) > 1:
        groups += summary.by_difficulty.items()
    if len(summary.by_variant) > 1:
        groups += [(f"variant {number}", curve) for number, curve in summary.by_variant.items()]
    if not groups:
        return ""
    ks = shown_ks(summary, most=4)
    rows = []
    for name, curve in groups:
        values = {e.k: f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})" for e in curve.estimates}
        rows.append([name, f"{curve.problems:,}", *(values.get(k, "") for k in ks)])
    columns = ["", "problems", *(f"pass@{k:,}" for k in ks)]
    body = table("pass@k of parts of the run, with 95 % intervals", columns, rows)
    return f"<details><summary>By difficulty and prompt variant</summary>{body}</details>"


def _problems(overview: Overview, drawn: dict[str, DrawnTask]) -> str:
    verdicts = overview.summary.verdicts if overview.summary else {}
    first = {task_id: task.first_solved for task_id, task in drawn.items()}
    return verdict_legend(verdicts) + problem_table(overview, first)


def _footer(results: Results) -> str:
    files = results.files
    named = [
        (name, str(path))
        for name, path in (
            ("Samples", files.samples),
            ("Verdicts", files.verdicts),
            ("Manifest", files.manifest),
        )
        if path
    ]
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    if results.broken:
        named.append(("Left out", f"{len(results.broken):,} lines that are no samples"))
    return f"<footer>{facts([*named, ('Written', written)])}</footer>"


def _data(results: Results, overview: Overview, drawn: dict[str, DrawnTask]) -> str:
    """What the script draws, as JSON that cannot end the element it stands in."""
    summaries = {p.task_id: p for p in overview.summary.problems} if overview.summary else {}
    room = min(_ROOM_BYTES // max(len(overview.tasks), 1), _ROOM_OF_ONE)
    tasks = []
    for counts in overview.tasks:
        task = drawn[counts.task_id]
        record: dict[str, Any] = {
            "id": whole(counts.task_id),
            "n": counts.samples,
            "ac": counts.accepted,
            "judged": counts.judged,
            "distinct": len(counts.programs),
            "tokens": counts.tokens,
            "v": by_frequency(counts.verdicts),
            "ends": by_frequency(counts.finish_reasons),
            "first": task.first_solved,
            "tree": program_tree(task.programs.values(), room),
        }
        if task.unkept:
            record["unkept"] = [task.unkept, task.unkept_solved]
        if (summary := summaries.get(counts.task_id)) is not None:
            record["pass"] = _pass_at_k(summary)
        tasks.append(record)
    found = {"run": str(results.files.name), "tasks": tasks}
    return json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")


def _pass_at_k(problem: ProblemSummary) -> list[tuple[int, float, float, float]]:
    estimates = problem.curve.estimates
    kept = [estimates[round(i * (len(estimates) - 1) / 3)] for i in range(4)] if estimates else []
    return [
        (e.k, round(e.value, 4), round(e.low, 4), round(e.high, 4)) for e in dict.fromkeys(kept)
    ]
