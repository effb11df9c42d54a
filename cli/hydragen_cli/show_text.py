"""What `hydragen show` prints for people: on a terminal, in a pipe, on few columns."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hydragen_cli.console import count, duration, show
from hydragen_tree.errors import first_of, one_line
from hydragen_tree.passk.problem_tally import by_frequency

if TYPE_CHECKING:
    from rich.console import Console

    from hydragen_tree.results.failing_test import FailingTest
    from hydragen_tree.results.judged_sample import JudgedSample
    from hydragen_tree.results.overview import Overview, TaskCounts
    from hydragen_tree.results.programs import DistinctProgram
    from hydragen_tree.results.results import Results
    from hydragen_tree.sample.manifest import Manifest

_MOST_TASKS = 60
_MOST_INDICES = 12
_MOST_LINES = 12  # of an input, a test's code, or standard error
_LEAST_SURE = 5  # tokens that are named
_BARS = "▁▂▃▄▅▆▇█"
_OF_STATUS = {"AC": "green", "IE": "yellow"}
_OF_MARK = {"-": "red", "+": "green", " ": "dim"}


def print_run(results: "Results", overview: "Overview", terminal: "Console") -> None:
    """Settings, counts, pass@k and a table of problems."""
    from hydragen_tree.passk.table import render_summary

    show(terminal, [*_about(results), *_counts(results, overview)])
    if overview.summary is not None and overview.summary.problems:
        render_summary(overview.summary, terminal)
    elif overview.listed:
        terminal.print(_task_table(overview.listed, terminal))
    else:
        terminal.print("no such problem", style="dim")


def _about(results: "Results") -> list[tuple[str, str]]:
    files, manifest = results.files, results.manifest
    names = [str(path) for path in (files.samples, files.verdicts) if path]
    facts = [("run", ", ".join(names))]
    if manifest is None:
        return [*facts, ("settings", "not known: there is no manifest beside the samples")]
    facts += [("model", describe_model(manifest)), ("settings", describe_settings(manifest))]
    if manifest.ends:
        facts.append(("ends", describe_ends(manifest.ends)))
    return facts


def _counts(results: "Results", overview: "Overview") -> list[tuple[str, str]]:
    manifest, counts = results.manifest, overview.to_json()
    drawn = f"{overview.samples:,} of {count(len(overview.tasks), 'problem')}"
    if manifest is not None and (missing := manifest.n_missing(overview.samples)):
        most = " at most" if manifest.stopping else ""
        drawn += f", {missing:,} missing of n = {manifest.n:,} a problem{most}"
    facts = [("samples", f"{drawn}; {counts['distinct_programs']:,} distinct programs")]
    if reasons := counts["finish_reasons"]:
        facts.append(("ended", ", ".join(f"{n:,} by {name}" for name, n in reasons.items())))
    if counts["tokens"]:
        speed = f", {describe_speed(manifest)}" if manifest else ""
        facts.append(("drawn", f"{count(counts['tokens'], 'token')}{speed}"))
    if not overview.judged:
        return [*facts, ("judged", f"nothing yet; hydragen-eval {results.files.name} judges it")]
    judged = f"{overview.judged:,} samples, {overview.accepted:,} accepted"
    if unjudged := overview.samples - overview.judged:
        judged += f", {unjudged:,} not judged yet"
    return [*facts, ("judged", f"{judged}; {overview.solved} of {len(overview.tasks)} solved")]


def describe_model(manifest: "Manifest") -> str:
    """`tiny, float32 on cpu, native attention`."""
    model = manifest.model
    parts = [manifest.model_name + (f" ({model['revision']})" if model.get("revision") else "")]
    parts.append(f"{model.get('dtype')} on {model.get('device')}")
    attention = [s["figures"].get("attention") for s in manifest.sessions if s.get("figures")]
    if attention and attention[-1]:
        parts.append(f"{attention[-1]} attention")
    if "kv_dtype" in model:
        parts.append(f"keys and values in {model['kv_dtype']}")
    if "batch_invariant" in model:
        parts.append("batch-invariant")
    return ", ".join(parts)


def describe_settings(manifest: "Manifest") -> str:
    """`temperature 0.8, top_k 0, ...`; what is empty or off is left out."""
    values = {"n": manifest.n, **(manifest.stopping or {}), **manifest.settings}
    shown = {name: v for name, v in values.items() if v is not False and v not in ((), [])}
    return ", ".join(f"{name} {_value(value)}".strip() for name, value in shown.items())


def _value(value: Any) -> str:
    if value is True:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(map(repr, value))
    return str(value)


def describe_ends(ends: Mapping[str, Any]) -> str:
    """What ends a sample, as the sampler says it."""
    from hydragen_tree.sample.end_conditions import EndConditions

    return printable(str(EndConditions(**ends)))


def describe_speed(manifest: "Manifest") -> str:
    """`8,588 a second in 9.9 s`, of the sessions that came to their end."""
    speed = manifest.speed
    if speed is None:
        return "not finished: no time is known"
    sessions = f" in {len(manifest.sessions)} sessions" if len(manifest.sessions) > 1 else ""
    return f"{speed.tokens_a_second:,.0f} a second, {duration(speed.elapsed_s)}{sessions}"


def _task_table(tasks: "Sequence[TaskCounts]", terminal: "Console") -> Table:
    """Problems whose samples are not judged; columns go where there is no room for them."""
    columns = ["samples", "distinct", "tokens", "cut", "majority", "log-prob"]
    while True:
        table = Table(
            title="By problem", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        table.add_column("problem", overflow="fold")
        for heading in columns:
            table.add_column(heading, justify="right", no_wrap=True)
        for task in tasks[:_MOST_TASKS]:
            table.add_row(
                one_line(task.task_id), *(_task_cell(task, heading) for heading in columns)
            )
        wide = Measurement.get(terminal, terminal.options.update(width=1000), table).maximum
        if wide <= terminal.width or len(columns) == 1:
            break
        columns.pop()
    if (more := len(tasks) - _MOST_TASKS) > 0:
        table.caption = f"and {more:,} problems more (--json has them all)"
    return table


def _task_cell(task: "TaskCounts", heading: str) -> str:
    per_sample = task.tokens / task.samples
    cells = {
        "samples": f"{task.samples:,}",
        "distinct": f"{len(task.programs):,}",
        "tokens": f"{per_sample:.1f}" if task.tokens else "-",
        "cut": f"{task.finish_reasons['length']:,}" if task.finish_reasons else "-",
        "majority": f"{task.majority:,}",
        "log-prob": "-" if task.mean_logprob is None else f"{task.mean_logprob:.2f}",
    }
    return cells[heading]


def print_task(
    overview: "Overview", programs: "Sequence[DistinctProgram]", top: int, terminal: "Console"
) -> None:
    """Counts of a problem, and its distinct programs, the most frequent first."""
    from hydragen_tree.passk.table import shown_ks

    (task,) = overview.tasks
    facts = [
        ("problem", one_line(task.task_id)),
        ("samples", f"{task.samples:,}, {count(len(task.programs), 'distinct program')}"),
    ]
    if task.verdicts:
        named = ", ".join(f"{n:,} {status}" for status, n in by_frequency(task.verdicts).items())
        facts.append(("verdicts", named))
    if overview.summary is not None:
        ks = shown_ks(overview.summary, most=4)
        facts += [
            (f"pass@{e.k}", f"{e.value:.3f}, 95 % interval {e.low:.3f} to {e.high:.3f}")
            for e in overview.summary.overall.estimates
            if e.k in ks
        ]
        facts += [
            (f"pass@{k}", f"is refused: {why}") for k, why in overview.summary.overall.refused
        ]
    show(terminal, facts)
    shown = programs[: top or None]
    for program in shown:
        terminal.print()
        _print_program(program, task.samples, terminal)
    if more := len(programs) - len(shown):
        terminal.print(f"\n{count(more, 'program')} more: --top 0 shows all", style="dim")
    if not programs:
        terminal.print("\nno such program", style="dim")


def _print_program(program: "DistinctProgram", of: int, terminal: "Console") -> None:
    samples = program.samples
    head = Text(f"{count(len(samples), 'sample')} ({len(samples) / of:.1%}) ", style="bold")
    head.append_text(_verdict(program.first))
    _say(terminal, head)
    indices = first_of([str(sample.index) for sample in samples], _MOST_INDICES)
    _say(terminal, Text(f"index {indices}", style="dim"))
    print_source(program.first, terminal)


def _verdict(judged: "JudgedSample") -> Text:
    """`WA on test 1: token 1: expected '7', got '12'`."""
    verdict = judged.verdict
    if verdict is None:
        return Text("not judged", style="dim")
    text = Text(verdict.status, style=_OF_STATUS.get(verdict.status, "red"))
    if verdict.failed_test is not None:
        text.append(f" on test {verdict.failed_test + 1}", style="default")
    if verdict.message:
        text.append(f": {printable(verdict.message)}", style="default")
    return text


def print_sample(
    judged: "JudgedSample", test: "FailingTest | None", why: str | None, terminal: "Console"
) -> None:
    """A sample: how it ended, its probabilities, its program, and the test that it fails."""
    line = judged.line
    variant = "" if line.prompt_variant is None else f", variant {line.prompt_variant}"
    _say(terminal, Text(f"{one_line(line.task_id)}, sample {judged.index}{variant}", style="bold"))
    _say(terminal, Text("verdict  ").append_text(_verdict(judged)))
    record = line.record
    if (reason := record.get("finish_reason")) is not None:
        tokens = f" after {count(record['n_tokens'], 'token')}" if "n_tokens" in record else ""
        _say(terminal, Text(f"ended    by {reason}{tokens}"))
    if isinstance(reasoning := record.get("reasoning"), str):
        _say(terminal, Text(f"thought  {count(len(reasoning), 'character')} before its answer"))
    for fact in _probabilities(record):
        _say(terminal, Text(fact))
    if logprobs := record.get("token_logprobs"):
        _print_token_probabilities([math.exp(value) for value in logprobs], terminal)
    terminal.print()
    print_source(judged, terminal)
    if test is not None:
        terminal.print()
        _print_test(test, terminal)
    elif why is not None:
        _say(terminal, Text(f"\nits test cannot be shown: {why}", style="dim"))
    elif judged.verdict is not None and judged.verdict.failed_test is not None:
        _say(terminal, Text("\nits problem has no such test any more", style="dim"))


def _probabilities(record: Mapping[str, Any]) -> list[str]:
    """How likely the sample was, by the model and as the settings had it drawn."""
    facts = []
    for name, key in (("model's  ", "logprob"), ("drawn by ", "sampled_logprob")):
        if not isinstance(logprob := record.get(key), int | float):
            continue
        fact = f"{name}probability {math.exp(logprob):.3g}"
        if tokens := record.get("n_tokens"):
            fact += f", {math.exp(logprob / tokens):.3f} a token (geometric mean)"
        facts.append(fact)
    return facts


def _print_token_probabilities(chances: Sequence[float], terminal: "Console") -> None:
    """A bar a token, and those that were least likely."""
    bars = Text()
    for chance in chances:
        bar = _BARS[min(int(chance * len(_BARS)), len(_BARS) - 1)]
        bars.append(bar, style="red" if chance < 0.1 else "yellow" if chance < 0.5 else "green")
    terminal.print(bars)
    least = sorted(range(len(chances)), key=chances.__getitem__)[:_LEAST_SURE]
    named = ", ".join(f"{i + 1} ({chances[i]:.3f})" for i in least)
    _say(terminal, Text(f"least likely tokens, of {len(chances)}: {named}", style="dim"))


def _print_test(test: "FailingTest", terminal: "Console") -> None:
    decided = "" if test.kind == "code" else f", compared by {test.checker}"
    _say(terminal, Text(f"test {test.index + 1} of {test.tests}{decided}", style="bold"))
    if test.problem_changed:
        _say(terminal, Text("the problem has changed since the samples were drawn", style="yellow"))
    _print_block(
        {"stdio": "input", "call": "call", "code": "test code"}[test.kind], test.input, terminal
    )
    if test.kind == "call":
        _print_block("expected", test.expected or "", terminal)
    if test.kind == "stdio":
        _print_difference(test, terminal)
    if test.stderr.strip():
        _print_block("standard error", test.stderr, terminal, from_end=True)


def _print_difference(test: "FailingTest", terminal: "Console") -> None:
    if test.checker == "program":
        _say(terminal, Text("a program decides: other answers than this one may be right"))
    lines = test.difference()
    if not lines:
        _print_block("expected", test.expected or "", terminal)
        _print_block("got", test.got or "", terminal)
        if test.got_is_cut:
            note = "the outputs are the same as far as the verdict keeps the program's"
            _say(terminal, Text(note, style="dim"))
        return
    _say(terminal, Text("expected (-) and got (+)", style="dim"))
    width = len(str(max(line.number for line in lines)))
    for line in lines:
        text = f"{line.mark} {line.number:>{width}} | {printable(line.text)}"
        _say(terminal, Text(text, style=_OF_MARK[line.mark]))
    if not test.got:
        _say(terminal, Text("nothing was written", style="dim"))


def _print_block(name: str, text: str, terminal: "Console", *, from_end: bool = False) -> None:
    from hydragen_tree.results.failing_test import cut

    lines = text.splitlines()
    shown = lines[-_MOST_LINES:] if from_end else lines[:_MOST_LINES]
    more = len(lines) - len(shown)
    left_out = f" ({'the last' if from_end else 'the first'} {_MOST_LINES} of {len(lines):,} lines)"
    _say(terminal, Text(name + (left_out if more else ""), style="dim"))
    for line in shown:
        _say(terminal, Text(f"  {printable(cut(line))}"))


def print_source(judged: "JudgedSample", terminal: "Console") -> None:
    """A program, coloured on a terminal and as it is in a pipe."""
    source = printable(judged.program).rstrip("\n")
    if not source.strip():
        _say(terminal, Text("no program", style="dim"))
    elif terminal.is_terminal:
        from rich.syntax import Syntax

        terminal.print(
            Syntax(
                source,
                {"c++": "cpp"}.get(judged.language, judged.language),
                theme="ansi_dark",
                background_color="default",
                word_wrap=True,
            )
        )
    else:
        _say(terminal, Text(source))


def _say(terminal: "Console", text: Text) -> None:
    """One line, which the terminal may wrap and a pipe gets whole."""
    terminal.print(text, soft_wrap=not terminal.is_terminal)


def printable(text: str) -> str:
    """Text of a model, fit for a terminal: control characters and half characters as escapes."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )
