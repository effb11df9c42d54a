"""One run in its folder: samples drawn and judged at the same time, down to pass@k.

    folder/samples.jsonl    its manifest beside it
          /verdicts.jsonl
          /summary.json     pass@k and figures
          /report.html      all of it as one page
          /problems/        those that had to be imported

Whatever ends a run, the same call goes on with it: samples that stand in the folder are not drawn
again, and those that have a verdict are not judged again.

Where verdicts decide how many samples a problem gets, samples are drawn in rounds, see `rounds.py`:
the batch is left to the problems that need it.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_tree.errors import InputError, OutputError
from hydragen_tree.files import write_text
from hydragen_tree.judge.grading import Grading
from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.verdict_file import VerdictFile
from hydragen_tree.passk.stopping import Stopping
from hydragen_tree.passk.summary import Summary
from hydragen_tree.problem.reading import STDIN
from hydragen_tree.problem.types import Problem
from hydragen_tree.prompt.prompts import Prompt, build_prompts
from hydragen_tree.results.report import write_report
from hydragen_tree.results.results import Results
from hydragen_tree.sample.lines import SampleLine
from hydragen_tree.sample.manifest import Manifest
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.session import session_figures
from hydragen_tree.sample.writer import SampleWriter
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.solving.board import Board
from hydragen_tree.solving.folder import RunFolder
from hydragen_tree.solving.following import JudgeThread
from hydragen_tree.solving.rounds import Rounds
from hydragen_tree.solving.savings import count_savings

_USUAL = SamplingSettings()


def run_and_judge(
    problems: Sequence[Problem],
    n: int,
    folder: str | Path,
    *,
    sampler: Sampler,
    judge: Judge,
    settings: SamplingSettings = _USUAL,
    chat: bool = False,
    chat_options: Mapping[str, Any] | None = None,
    variants: int | None = None,
    ks: Sequence[int] = (),
    until_solved: int | None = None,
    until_width: float | None = None,
    budget_s: float | None = None,
    force: bool = False,
) -> Summary:
    """Draws n samples of every problem into a folder, and judges them meanwhile.

        with Judge() as judge:
            run_and_judge(load_problems(["problems/"]), 100, "runs/a", sampler=sampler, judge=judge)

    Args:
        problems: what to solve, each with tests.
        n: samples a problem; with a folder that is there already it may have grown.
        folder: the run's; made if need be. What an earlier call left there is gone on with.
        sampler: the model's.
        judge: judges the programs.
        settings: how to sample.
        chat: render the problems through the tokenizer's chat template.
        chat_options: the template's own switches, such as `{"enable_thinking": False}`.
        variants: few-shot variants a problem, instead of what it says itself.
        ks: for which pass@k is estimated, besides log-spaced ones.
        until_solved: draw no more samples of a problem with so many accepted ones.
        until_width: draw no more of a problem whose interval of pass@1 is at most so wide.
        budget_s: seconds after which no sample is drawn; those that are there are judged.
        force: give up what the folder holds.

    Raises:
        InputError: a problem cannot be judged or does not fit, or the folder is another run's.
        CapacityError: not even one branch fits into the memory there is.
        OutputError: the folder cannot be written.
    """
    place = RunFolder(Path(folder))
    place.path.mkdir(parents=True, exist_ok=True)
    prompts = build_prompts(
        problems,
        sampler.tokenizer,
        seed=settings.seed,
        chat=chat,
        chat_options=chat_options,
        variants=variants,
    )
    with Solving(
        place,
        problems,
        prompts,
        Stopping(n, until_solved, until_width),
        sampler=sampler,
        judge=judge,
        settings=settings,
        force=force,
    ) as solving:
        solving.run(budget_s=budget_s)
        summary = solving.finish(ks)
        solving.report()
        return summary


class Solving:
    """A run whose files are open. Use it in a `with` block.

    Args:
        folder: the run's; it exists.
        problems: what to solve.
        prompts: of all of them.
        rule: how many samples a problem gets.
        sampler: the model's.
        judge: judges the programs.
        settings: how to sample.
        language: of the programs.
        options: what the run was started with, for the record: see `Manifest.with_session`.
        force: give up what the folder holds, with the first sample.
        say: told of the judge's faults as they are met, a line each.
        worded: the text of an error, where settings have other names.

    Attributes:
        board: what became of every problem so far.
        writer: of the samples.
        grading: of their programs.
        session: figures of what was drawn by `run`; None where nothing was.
        figures: how far the run is, as plain JSON types, as of `finish`.

    Raises:
        InputError: a problem cannot be judged, or the folder is another run's.
    """

    def __init__(
        self,
        folder: RunFolder,
        problems: Sequence[Problem],
        prompts: Sequence[Prompt],
        rule: Stopping,
        *,
        sampler: Sampler,
        judge: Judge,
        settings: SamplingSettings,
        language: str = "python",
        options: Mapping[str, Any] | None = None,
        force: bool = False,
        say: Callable[[str], None] = lambda message: None,
        worded: Callable[[InputError], str] = str,
    ) -> None:
        _require_judgeable(problems, judge)
        sampler.check(prompts, settings, rule.n)
        self.folder, self.board = folder, Board(problem.id for problem in problems)
        self._sampler, self._settings, self._prompts = sampler, settings, prompts
        self._rule, self._language = rule, language
        self._rounds: Rounds | None = None
        self.session: dict[str, Any] | None = None
        self.figures: dict[str, Any] = {}
        by_rule = {key: value for key, value in rule.to_json().items() if key != "n"}
        with ExitStack() as files:
            self.writer = files.enter_context(
                SampleWriter(folder.samples, resume=not force, force=force)
            )
            self.writer.begin(
                Manifest.describe(
                    prompts,
                    n=rule.n,
                    settings=settings,
                    model=sampler.fingerprint,
                    problems=_origins(problems),
                    ends=sampler.ends(prompts, settings).record(),
                    stopping=by_rule or None,
                ),
                options,
            )
            self._verdicts = files.enter_context(
                VerdictFile(folder.verdicts, self.board, resume=not force, force=force)
            )
            for task_id, indices in self.writer.done.items():
                self.board.drew(task_id, len(indices))
            self.grading = Grading(
                judge, _Problems(problems), self._verdicts, None, say, worded, rule.to_json()
            )
            self._files = files.pop_all()

    def run(
        self,
        held: Callable[[], AbstractContextManager[None]] = nullcontext,
        budget_s: float | None = None,
    ) -> None:
        """Draws the samples that are missing, and judges those without a verdict.

        Args:
            held: around every write: what must not be interrupted.
            budget_s: seconds from now after which no sample is drawn.

        Raises:
            CapacityError: not even one branch fits into the memory there is.
            OutputError: a file cannot be written; every earlier line is intact.
        """
        deadline = None if budget_s is None else time.monotonic() + budget_s
        with JudgeThread(self.grading, self.folder.samples, self._language) as judging:
            if self.writer.tally.samples:
                judging.start()  # while the model loads
            self._rounds = rounds = Rounds(
                self._rule,
                self.board,
                self.writer.done,
                deadline=deadline,
                # with a limit of time, too, every problem is to have as many samples as the others
                in_rounds=self._rule.looks_at_verdicts or deadline is not None,
                enough=self._sampler.max_rows,
                is_all_judged=self._is_all_judged,
                wait=judging.check,
            )
            self._draw(rounds, judging, held, deadline)
            with held():
                self._end_session()
            judging.finish()

    def _is_all_judged(self) -> bool:
        faults = self.grading.faults  # infrastructure errors have a line, and are counted by it
        without_line = faults.total() - faults["infrastructure errors"]
        return self.board.judged + without_line >= self.board.drawn

    def _draw(
        self,
        rounds: Rounds,
        judging: JudgeThread,
        held: Callable[[], AbstractContextManager[None]],
        deadline: float | None,
    ) -> None:
        """Draws what the rounds give, in one run."""
        if (first := rounds.give(0)) is None:
            return
        given = [first]  # before the model was loaded

        def feed(n_waiting: int) -> Mapping[str, NDArray[np.int64]] | None:
            return given.pop() if given else rounds.give(n_waiting)

        tasks = {*rounds.open, *first}
        prompts = [prompt for prompt in self._prompts if prompt.task_id in tasks]
        n, done = self._rule.n, self.writer.done
        done = {task_id: {*indices} for task_id, indices in done.items() if task_id in tasks}
        for sample in self._sampler.sample(prompts, n, self._settings, done=done, feed=feed):
            with held():
                if not self.writer.tally.samples:
                    self._verdicts.finish()  # those of samples that are given up go first
                self.writer.write(sample)
                self.board.drew(sample.task_id)
            rounds.came(sample.task_id)
            judging.start()
            judging.check()
            if deadline is not None and time.monotonic() > deadline:
                rounds.is_out_of_time = True
                break
        self.session = session_figures(self._sampler, self._prompts[0])

    @property
    def is_out_of_time(self) -> bool:
        """Whether the budget has ended `run`."""
        return self._rounds is not None and self._rounds.is_out_of_time

    def _end_session(self) -> None:
        """Keeps the session's figures, and the run's where no more samples are to come."""
        complete = self.writer.complete or not self.is_out_of_time
        if self.session is not None or (complete and self.writer.manifest.result is None):
            self.writer.finish(self.session or {}, complete=complete)

    def finish(self, ks: Sequence[int] = ()) -> Summary:
        """Writes the summary of what is judged so far.

        Args:
            ks: for which pass@k is estimated, besides log-spaced ones.

        Raises:
            InputError: a k below 1.
            OutputError: the summary cannot be written.
        """
        summary = self.board.summary(ks)
        self.figures = self._figures()
        record = {**summary.to_json(), **self.grading.figures(), "run": self.figures}
        try:
            write_text(self.folder.summary, json.dumps(record, indent=1) + "\n")
        except OSError as error:
            raise OutputError(f"{self.folder.summary}: cannot be written: {error}") from error
        return summary

    def report(self) -> None:
        """Writes the run as one page of HTML.

        Raises:
            OutputError: it cannot be written.
        """
        write_report(Results.read(self.folder.samples), self.folder.report)

    def _figures(self) -> dict[str, Any]:
        return {
            **self._rule.to_json(),
            "complete": self.is_complete,
            **self.writer.tally.figures(),
            **self._savings(),
            "solved": self.board.solved,
            "first_accepted": {
                problem.task_id: problem.first_accepted for problem in self.board.problems.values()
            },
        }

    def _savings(self) -> dict[str, Any]:
        if not self._rule.looks_at_verdicts:
            return {}
        ended = [task_id for task_id in self.board.problems if self.board.is_met(task_id)]
        return {"saved": asdict(count_savings(self.folder.samples, self._rule.n, ended))}

    @property
    def is_complete(self) -> bool:
        """Every sample is drawn and has a verdict."""
        if self._rule.looks_at_verdicts:
            return all(map(self.board.is_met, self.board.problems))
        judged = self._verdicts.lines - self.grading.faults.total()
        return self.writer.complete and judged >= self.writer.tally.samples

    @property
    def most_samples(self) -> int:
        """How many samples the run has at its end, if no further problem is ended by its rule."""
        ended = self._rounds.ended if self._rounds is not None else ()
        return sum(
            problem.drawn if task_id in ended else self._rule.n
            for task_id, problem in self.board.problems.items()
        )

    def __enter__(self) -> "Solving":
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()


class _Problems:
    """Finds the problem of a sample among those of the run."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._by_id = {problem.id: problem for problem in problems}

    def find(self, line: SampleLine) -> Problem | InputError:
        """The problem; the run has no samples of others."""
        return self._by_id[line.task_id]

    def changed(self, problem: Problem) -> bool:
        """The manifest has made sure that they are those of the samples."""
        return False


def _origins(problems: Sequence[Problem]) -> dict[str, tuple[str | None, str]]:
    """Task id to (path, content hash), for the manifest."""
    return {
        problem.id: (None if problem.source == STDIN else problem.source, problem.content_hash)
        for problem in problems
    }


def _require_judgeable(problems: Sequence[Problem], judge: Judge) -> None:
    faults = []
    for problem in problems:
        try:
            judge.require_judgeable(problem)
        except InputError as error:
            faults.append(error)
    if faults:
        raise InputError("\n".join(map(str, faults)))
