"""What is known of every sample of a run: its random numbers, its probabilities, how it ended."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_kernels.drawn import Drawn
from hydragen_tree.branch.drawing import stream_keys
from hydragen_tree.branch.growing import Growing
from hydragen_tree.branch.stepper import Ended
from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompts import Prompt
from hydragen_tree.sample.endings import Endings
from hydragen_tree.sample.finishing import Answer, Programs
from hydragen_tree.sample.sample import FinishReason, Sample
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.sample.thought_tokens import ThoughtTokens
from hydragen_tree.sample.thoughts import split_reasoning
from hydragen_tree.settings import SamplingSettings

_PORTION = 512  # rows' samples whose programs are looked for at a time


@dataclass(slots=True)
class RunStats:
    """Live figures of a run; read them whenever you like.

    Attributes:
        samples_total: samples to draw in this run.
        samples_done: samples finished.
        samples_live: samples in the batch.
        rows_live: rows in the batch.
        tokens_sampled: tokens drawn, summed over samples.
        rows_computed: rows whose logits were computed to draw them.
        prompts_joined: prompts that came while the run was going.
        prompt_tokens: distinct prompt tokens: computed and stored once.
        prompt_tokens_unshared: what n independent runs would compute.
        prefilled_tokens: prompt and tail tokens computed, repeats after parking included.
        kv_bytes_peak: most bytes of keys and values in use.
        steps_host: steps whose ends and forks the host worked out before it took another.
        steps_device: steps that a device took ahead of the host.
        drafts_proposed: tokens that steps took along because siblings had drawn them.
        drafts_accepted: those of them that were drawn.
        rows_parked: rows that had to leave the batch, to be computed again.
        lengths_predicted: samples that have ended whose length had been predicted.
        length_predicted_tokens: as predicted, summed over them.
        length_real_tokens: as drawn, summed over them.
        length_error_tokens: by how much predictions were off, summed over them.
        admission_s: seconds of the host for prompts and for rows that come; a GPU computes prompts
            later, behind its steps.
        stepping_s: seconds of the host for steps, and those it waited for them.
        started: `time.perf_counter()` when the weights were there and sampling began.
    """

    samples_total: int = 0
    samples_done: int = 0
    samples_live: int = 0
    rows_live: int = 0
    tokens_sampled: int = 0
    rows_computed: int = 0
    prompts_joined: int = 0
    prompt_tokens: int = 0
    prompt_tokens_unshared: int = 0
    prefilled_tokens: int = 0
    kv_bytes_peak: int = 0
    steps_host: int = 0
    steps_device: int = 0
    drafts_proposed: int = 0
    drafts_accepted: int = 0
    rows_parked: int = 0
    lengths_predicted: int = 0
    length_predicted_tokens: float = 0.0
    length_real_tokens: int = 0
    length_error_tokens: float = 0.0
    admission_s: float = 0.0
    stepping_s: float = 0.0
    started: float = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run started."""
        return time.perf_counter() - self.started


class SampleRecords:
    """All samples of a run by their number; decides when one ends, and records it.

    Args:
        prompts: of all tasks.
        ranges: by task id, the sample indices of this run.
        settings: how to sample.
        detokenizer: the tokenizer's.
        eos_ids: tokens that end a text by the model's configuration.
        stop_tokens: tokens that the settings name.
        done: task ids with the sample indices that exist already.
        stats: `samples_total`, `samples_done` and `prompt_tokens_unshared` are kept here.
        programs: finds the programs in answers; by default in this process.

    Attributes:
        settings: how to sample.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        ranges: Mapping[str, range],
        settings: SamplingSettings,
        detokenizer: Detokenizer,
        eos_ids: Collection[int],
        stop_tokens: Collection[int],
        done: Mapping[str, Collection[int]],
        stats: RunStats,
        programs: Programs | None = None,
    ) -> None:
        self._programs = programs or Programs()
        self._prompts: list[Prompt] = []
        self.settings, self._stats = settings, stats
        stops = dict.fromkeys((*settings.stop, *prompt.stop) for prompt in prompts)
        self._stop_numbers = {stop: number for number, stop in enumerate(stops)}
        self._stop_set: list[int] = []
        self._task_numbers: dict[str, int] = {}
        self._tasks = Growing(np.empty(0, np.int64))
        self._thoughts = ThoughtTokens(detokenizer)
        self._endings = Endings(detokenizer, list(stops), eos_ids, stop_tokens)
        self._prompt = Growing(np.empty(0, np.int64))
        self._index = Growing(np.empty(0, np.int64))
        self._keys = Growing(np.empty(0, np.uint64))
        self._logprob, self._sampled_logprob = Growing(np.empty(0)), Growing(np.empty(0))
        self._token_logprobs: list[list[float]] = []
        self.extend(prompts, ranges, done)

    @property
    def tasks(self) -> NDArray[np.int64]:
        """`[prompts]` number of the task of each prompt."""
        return self._tasks.values

    @property
    def prompt(self) -> NDArray[np.int64]:
        """`[samples]` number of the prompt each continues, ascending."""
        return self._prompt.values

    @property
    def index(self) -> NDArray[np.int64]:
        """`[samples]` the sample index of each."""
        return self._index.values

    @property
    def keys(self) -> NDArray[np.uint64]:
        """`[samples]` stream keys."""
        return self._keys.values

    def extend(
        self,
        prompts: Sequence[Prompt],
        ranges: Mapping[str, range],
        done: Mapping[str, Collection[int]],
    ) -> list[tuple[int, NDArray[np.int64]]]:
        """Takes in further tasks.

        Args:
            prompts: of whole tasks.
            ranges: by task id, their sample indices.
            done: task ids with the sample indices that exist already.

        Returns:
            Of each prompt its number, and the numbers of its samples.

        Raises:
            InputError: a task is there already, or has stop strings that none before has.
        """
        variants: dict[str, int] = {}
        for prompt in prompts:
            if prompt.task_id in self._task_numbers:
                raise InputError(
                    f"task id {prompt.task_id!r} comes twice, expected ids that differ"
                )
            if (*self.settings.stop, *prompt.stop) not in self._stop_numbers:
                raise InputError(
                    f"{prompt.task_id}: came late, with stop strings that no prompt before has"
                )
            variants[prompt.task_id] = max(variants.get(prompt.task_id, 0), prompt.variant + 1)
        parts, first_number = [], self.index.size
        for prompt in prompts:
            all_of, n_variants = ranges[prompt.task_id], variants[prompt.task_id]
            first = all_of.start + (prompt.variant - all_of.start) % n_variants
            own = np.arange(first, all_of.stop, n_variants, dtype=np.int64)
            if finished := done.get(prompt.task_id):
                own = own[~np.isin(own, np.array([*finished]))]
            self._index.append(own)
            key = self.settings.seed, prompt.task_id, prompt.variant
            self._keys.append(stream_keys(*key, own))
            self._prompt.append(np.full(own.size, len(self._prompts)))
            parts.append((len(self._prompts), first_number + np.arange(own.size)))
            first_number += own.size
            self._prompts.append(prompt)
            task = self._task_numbers.setdefault(prompt.task_id, len(self._task_numbers))
            self._tasks.append(np.array([task]))
            self._stop_set.append(self._stop_numbers[*self.settings.stop, *prompt.stop])
            self._stats.prompt_tokens_unshared += own.size * len(prompt.token_ids)
        more = np.zeros(self.index.size - self._logprob.values.size)
        self._logprob.append(more)
        self._sampled_logprob.append(more)
        if self.settings.logprobs:
            self._token_logprobs += [[] for _ in range(more.size)]
        self._stats.samples_total += more.size
        return parts

    @property
    def searches_texts(self) -> bool:
        """Whether samples end by what is found in their texts, which takes the host."""
        return self._endings.table is None

    @property
    def stop_table(self) -> NDArray[np.int16] | Int32 | None:
        """What each token does to each state: `[states, vocabulary]`; None: texts are searched."""
        table = self._endings.table
        return None if table is None else table.rows()

    def add(self, samples: NDArray[np.int64], drawn: Drawn[NDArray[Any]]) -> None:
        """Takes in what samples have drawn.

        Args:
            samples: `[samples]` their numbers.
            drawn: `[steps, samples]` each; the token -1 where a sample has drawn nothing.
        """
        has_drawn = drawn.tokens >= 0
        logprobs = np.where(has_drawn, drawn.logprobs, 0.0).astype(np.float64)
        sampled = np.where(has_drawn, drawn.sampled_logprobs, 0.0).astype(np.float64)
        # one by one: how many come at a time depends on the batch, and must not change the sums
        for own, own_sampled in zip(logprobs, sampled, strict=True):
            self._logprob.values[samples] += own
            self._sampled_logprob.values[samples] += own_sampled
        self._stats.tokens_sampled += int(np.count_nonzero(has_drawn))
        if self.settings.logprobs:
            for column, sample in enumerate(samples.tolist()):
                kept = logprobs[has_drawn[:, column], column]
                self._token_logprobs[sample] += kept.tolist()

    def state(self, sample: int, tokens: Int32) -> int:
        """See `hydragen_tree.branch.stepper.Ends`."""
        number = self.prompt[sample]
        return self._endings.state(self._stop_set[number], self._prompts[number].token_ids, tokens)

    def advance(self, states: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `hydragen_tree.branch.stepper.Ends`."""
        return self._endings.advance(states, tokens)

    def has_ended(self, sample: int, tokens: Int32) -> bool:
        """See `hydragen_tree.branch.stepper.Ends`."""
        return self._endings.table is not None or self._ending(sample, tokens)[0] is not None

    def stop_set(self, prompt: int) -> int:
        """A number for the strings that end samples of a prompt: the same strings, the same one."""
        return self._stop_set[prompt]

    def finished(self, all_ended: Sequence[Ended]) -> Iterator[Sample]:
        """One record for each of the samples that have ended.

        In portions: programs of one are looked for by other processes, if there are any, while
        texts of the next and records of the last are made here.
        """
        before: list[tuple[Ended, FinishReason | None, str]] = []
        found: Callable[[], list[str]] = list
        for first in range(0, len(all_ended) + _PORTION, _PORTION):  # the last one is empty
            texts = [
                (ended, *self._ending(int(ended.samples[0]), ended.tokens))
                for ended in all_ended[first : first + _PORTION]
            ]
            programs = iter(found())
            answers = [
                self._answer(number, text)
                for ended, _, text in texts
                for number in ended.samples.tolist()
            ]
            found = self._programs.ask(answers)
            for ended, reason, text in before:
                yield from self._records(ended, reason or "length", text, programs)
            before = texts

    def _answer(self, sample: int, text: str) -> Answer:
        prompt = self._prompts[self.prompt[sample]]
        return Answer(text, prompt.text, prompt.starter, prompt.entry_point)

    def _records(
        self, ended: Ended, reason: FinishReason, text: str, programs: Iterator[str]
    ) -> Iterator[Sample]:
        """The samples that have ended with the same tokens."""
        token_ids = tuple(ended.tokens.tolist())
        for number in ended.samples.tolist():
            prompt = self._prompts[self.prompt[number]]
            self._stats.samples_done += 1
            reasoning, answer = split_reasoning(text, prompt.text)
            yield Sample(
                task_id=prompt.task_id,
                sample_index=int(self.index[number]),
                prompt_variant=prompt.variant,
                completion=answer,
                solution=next(programs),
                finish_reason=reason,
                n_tokens=len(token_ids),
                logprob=float(self._logprob.values[number]),
                sampled_logprob=float(self._sampled_logprob.values[number]),
                seed=self.settings.seed,
                token_ids=token_ids,
                token_logprobs=tuple(self._token_logprobs[number])
                if self.settings.logprobs
                else None,
                reasoning=reasoning,
            )

    def _ending(self, sample: int, tokens: Int32) -> tuple[FinishReason | None, str]:
        """Why a history ends in its last token, if not for its length, and its text."""
        number = self.prompt[sample]
        prompt = self._prompts[number].token_ids
        reason, text = self._endings.ending(self._stop_set[number], prompt, tokens)
        return reason, self._thoughts.marked(text, prompt, tokens)
