"""The public face of sampling: a model, some problems, n samples of each.

sampler = Sampler.from_pretrained("tiny")
for sample in sampler.sample(["def add(a, b):"], n=100):
    print(sample.completion)
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch

from hydragen_tree.attention.table import backend, choose
from hydragen_tree.attention.triton_backend import is_interpreting
from hydragen_tree.branch.budget import batch_rows
from hydragen_tree.branch.long_prompts import check_prompts, stand_ins
from hydragen_tree.errors import InputError
from hydragen_tree.model.adapter import TreeModel
from hydragen_tree.model.device import out_of_memory
from hydragen_tree.model.fingerprint import fingerprint
from hydragen_tree.model.invariance import adapted, ordered_attention
from hydragen_tree.model.latent import with_latent_tails
from hydragen_tree.model.loading import ModelSource, find_model, load_tokenizer, load_weights
from hydragen_tree.model.quantising import LogitError, measure_logit_error
from hydragen_tree.model.ranks import ALONE, Ranks
from hydragen_tree.problem.types import Problem
from hydragen_tree.prompt.prompts import Prompt, longest_sequence, prompts_from_sources
from hydragen_tree.sample.end_conditions import EndConditions, find_tokens
from hydragen_tree.sample.feeding import Feed, fed_samples
from hydragen_tree.sample.finishing import NoPrograms, Programs, workers_for
from hydragen_tree.sample.joining import Joining, Late
from hydragen_tree.sample.making import Means, make_loop
from hydragen_tree.sample.notebook import NotebookView
from hydragen_tree.sample.records import RunStats, SampleRecords
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.shard import Part, check_number, sample_ranges
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.trie.costs import CostModel, find_cost
from hydragen_tree.trie.outline import Outline

_DEFAULTS = {"cpu": (256, 16, 2048)}  # rows, page tokens, prefill tokens
_GPU_DEFAULTS = (1024, 64, 8192)
_USUAL = SamplingSettings()
DRAFTS = ("auto", "on", "off")


class Sampler(NotebookView):
    """Draws samples from one model. Weights load when the first run has passed its checks.

    Attributes:
        source: the model's place, configuration and sizes.
        tokenizer: the model's.
        attention, memory_bytes, compiled, drafts: as given.
        max_rows: branches in the batch at the most.
        page_tokens: tokens of a page of keys and values.
        stats: figures of the latest run, live.
    """

    def __init__(
        self,
        source: ModelSource,
        *,
        attention: str = "auto",
        memory_bytes: int | None = None,
        max_rows: int | None = None,
        compiled: bool = False,
        drafts: str = "auto",
        ranks: Ranks = ALONE,
    ) -> None:
        if drafts not in DRAFTS:
            raise InputError(f"expected one of {', '.join(DRAFTS)}", setting="drafts", value=drafts)
        if memory_bytes is not None and memory_bytes < 1:
            raise InputError(
                "expected a size of at least 1 byte", setting="memory_bytes", value=memory_bytes
            )
        if max_rows is not None and max_rows < 1:
            raise InputError("expected an integer >= 1", setting="max_rows", value=max_rows)
        if source.batch_invariant:
            attention = ordered_attention(attention, compiled)
        self.backend = choose(attention, source.heads)  # refuses what does not fit
        self.source = source = with_latent_tails(source, self.backend)
        self.tokenizer = load_tokenizer(source)
        self.stats = RunStats()
        self._detokenizer = Detokenizer(self.tokenizer, int(source.config.vocab_size))
        self.attention = attention
        self.memory_bytes = memory_bytes
        self.compiled = compiled
        self.drafts = drafts
        self._ranks = ranks
        rows, self.page_tokens, self._prefill_tokens = _DEFAULTS.get(
            source.device.type, _GPU_DEFAULTS
        )
        if source.device.type == "cuda":
            card = torch.cuda.get_device_properties(source.device)
            rows = batch_rows(source, memory_bytes or card.total_memory)
        self.max_rows = max_rows or rows
        self._model: TreeModel | None = None
        self._logit_error: LogitError | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str = "tiny",
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        kv_dtype: str = "auto",
        weights: str = "auto",
        weights_memory: int | None = None,
        long_prompt: str = "refuse",
        tensor_parallel: int = 1,
        attention: str = "auto",
        memory_bytes: int | None = None,
        max_rows: int | None = None,
        compiled: bool = False,
        drafts: str = "auto",
        batch_invariant: bool = False,
    ) -> "Sampler":
        """Finds a model and makes a sampler of it.

        Args:
            model: `tiny` (the demonstration model that ships), a directory, or a hub id.
            revision: of the hub repository.
            dtype: `auto` (float32 on a CPU, else as stored), `float32`, `bfloat16`, `float16`.
            device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, ...
            kv_dtype: of keys and values: `auto` (as the rest), or `fp8`: float8_e4m3fn without
                scales. Half the memory of 16 bits; samples are not exactly the model's.
            weights: of linear layers: `auto` (as the rest), `fp8`, of all but the head:
                float8_e4m3fn with a scale for each output channel, their inputs with one for each
                row, faster on a GPU from some 200 rows on; or on a CPU `int8`, likewise, with a
                scale for each 128 inputs, or `bfloat16`. Samples are not exactly the model's, see
                `logit_error`.
            weights_memory: bytes for all weights of a stack, which `hydragen stack` writes; None:
                all of it. The fewer, the further samples are from the model's.
            tensor_parallel: devices that have the model together. Such a sampler does not draw
                itself: `run` does, or a `SpreadSampler`, with a process for each.
            long_prompt: of prompts beyond the context: `refuse`, or `homer`, see `condensing`.
            attention: backend, see `tree_attention`.
            memory_bytes: for keys and values; by default measured: half of the free memory of a
                CPU, on a GPU what weights and a step's own needs leave.
            max_rows: branches in the batch at the most; None: on a GPU as many as memory is likely
                to hold, 1,024 to 16,384; on a CPU 256.
            compiled: compile the model's layers on a GPU; of use where no kernel here computes a
                model's norms and rotation.
            drafts: `auto`: steps of the host take along what samples drew before, where rows are so
                few that it pays; samples are the same. `on`: captured steps of a GPU as well.
                `off`: never.
            batch_invariant: samples and log-probabilities are the same bits whatever the batch, n,
                memory, other problems, shards or a resume are; refused where they would not be.

        Raises:
            ModelError: the model is missing, broken or not supported.
        """
        source = find_model(
            model,
            revision=revision,
            dtype=dtype,
            device=device,
            kv_dtype=kv_dtype,
            weights=weights,
            weights_memory=weights_memory,
            long_prompt=long_prompt,
            tensor_parallel=tensor_parallel,
            batch_invariant=batch_invariant,
        )
        return cls(
            source,
            attention=attention,
            memory_bytes=memory_bytes,
            max_rows=max_rows,
            compiled=compiled,
            drafts=drafts,
        )

    @property
    def fingerprint(self) -> dict[str, str]:
        """What identifies the model in a manifest."""
        return fingerprint(self.source)

    @property
    def model(self) -> TreeModel:
        """The adapted model; loads the weights on first use."""
        if self._model is None:
            weights = load_weights(self.source, self._ranks)
            self._model = adapted(weights, self.source, self.attention, self._ranks)
        return self._model

    def logit_error(self, prompt: Prompt) -> LogitError | None:
        """How far 8 bits move the logits of a prompt's tokens, measured while the weights load.

        Returns:
            What was measured first; None where nothing is quantised, or the weights had been loaded
            without being asked.
        """
        if self.source.is_quantised and self._model is None:
            weights = load_weights(self.source)
            self._logit_error = measure_logit_error(weights, prompt.token_ids.tolist())
            self._model = adapted(weights, self.source, self.attention, self._ranks)
        return self._logit_error

    @property
    def cost(self) -> CostModel:
        """The device's constants: as fitted by `hydragen bench fit`, else those that ship."""
        return find_cost(self.source.device)

    def sample(
        self,
        sources: Sequence[Prompt | Problem | str | list[dict[str, str]] | Sequence[int]],
        n: int,
        settings: SamplingSettings = _USUAL,
        *,
        done: Mapping[str, Collection[int]] | None = None,
        shard: Part | None = None,
        feed: Feed | None = None,
        late: Late | None = None,
    ) -> Iterator[Sample]:
        """Draws n samples of every source, yielding each as it finishes.

        The random numbers of sample i are the same whatever n, the batch, the memory or the other
        tasks are. So is the sample with `batch_invariant`, and in float32 but for rounding that has
        never been seen to matter; in 16 bits sums depend on the batch, and some samples with them.

        Args:
            sources: problems, strings, chat messages, token lists, or prompts already built.
            n: samples a task, at least 1.
            settings: how to sample.
            done: by task id, sample indices that exist already and are not drawn again.
            shard: draw only these samples of the run, the same ones as the whole run draws.
            feed: gives the samples piece by piece, and is asked before every step; None: all.
            late: gives further prompts while the run is going, without feed or shard: they join
                its tree, and n samples of each are drawn, the same ones as if all had been there.

        Raises:
            InputError: n < 1, late prompts together with feed or shard, no such shard, more than
                10 million samples to draw, an empty prompt, or one beyond the model's context.
            CapacityError: not even one branch fits into the memory given.
        """
        if n < 1:
            raise InputError("expected an integer >= 1", setting="n", value=n)
        if late is not None and (feed is not None or shard is not None):
            raise InputError("late: of a shard, or of samples that are fed, all prompts are known")
        prompts = prompts_from_sources(sources, self.tokenizer, seed=settings.seed)
        self.check(prompts, settings, n, shard)
        return self._on_device(self._run(prompts, n, settings, done or {}, shard, feed, late))

    def check(
        self,
        prompts: Sequence[Prompt],
        settings: SamplingSettings,
        n: int = 1,
        shard: Part | None = None,
    ) -> None:
        """Refuses prompts that the model cannot hold, and too many samples; needs no weights.

        Raises:
            InputError: there is no prompt, one is too long, there is no such stop token or shard,
                or the shard, or the run of n samples a task, would have more than 10 million.
        """
        if not prompts:
            raise InputError("no prompts: expected at least one")
        ranges = sample_ranges((prompt.task_id for prompt in prompts), n, shard)
        check_number(ranges, n)
        find_tokens(self._detokenizer, settings.stop_tokens)
        check_prompts(self.source, prompts, settings.max_tokens)

    def ends(self, prompts: Sequence[Prompt], settings: SamplingSettings = _USUAL) -> EndConditions:
        """What ends a sample before its tokens run out; needs no weights.

        Raises:
            InputError: the tokenizer has no such stop token.
        """
        return EndConditions.of(self._detokenizer, self.source.eos_ids, settings, prompts)

    def _on_device(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """The same samples, drawn with the model's device current: kernels start there.

        Raises:
            HydragenError: the device has run out of memory.
        """
        device = self.source.device
        while True:
            try:
                with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                    sample = next(samples, None)
            except torch.OutOfMemoryError as error:
                raise out_of_memory(error) from error
            if sample is None:
                return
            yield sample

    def _run(
        self,
        prompts: Sequence[Prompt],
        n: int,
        settings: SamplingSettings,
        done: Mapping[str, Collection[int]],
        shard: Part | None,
        feed: Feed | None,
        late: Late | None,
    ) -> Iterator[Sample]:
        self.stats = stats = RunStats(started=time.perf_counter())
        ranges = sample_ranges((prompt.task_id for prompt in prompts), n, shard)
        n_left = sum(map(len, ranges.values())) - sum(map(len, done.values()))
        outline = self.outline(prompts, n, shard, settings.max_tokens)
        # its processes start while the model loads
        helpers = workers_for(self.source.device.type, n_left)
        with Programs(helpers) if self._ranks.leads else NoPrograms() as programs:
            model = self.model  # before the arena: what the weights leave is measured
            longest = longest_sequence(prompts, settings.max_tokens)
            model.prepare(min(longest, self.source.context_tokens))
            if self.compiled and model.device.type == "cuda":
                model.compile()
            records = SampleRecords(
                outline.prompts,
                ranges,
                settings,
                self._detokenizer,
                self.source.eos_ids,
                find_tokens(self._detokenizer, settings.stop_tokens),
                done,
                stats,
                programs,
            )
            loop = make_loop(
                self._means, outline, records, stats, feed is not None, late is not None
            )
            stats.started = time.perf_counter()
            if feed is not None:
                yield from fed_samples(loop, outline.prompts, outline.trie, feed)
            elif late is not None:
                check = partial(self.check, settings=settings, n=n)
                rest = self.source, check, n, settings, done, late
                joining = Joining(loop, outline.prompts, *rest)
                yield from loop.samples(lambda _: joining.take())
            else:
                yield from loop.samples()

    @property
    def _means(self) -> Means:
        return Means(
            self.model,
            self.source,
            self.cost,
            self.backend,
            self.is_fused,
            self.key_group,
            self.page_tokens,
            self._prefill_tokens,
            self.max_rows,
            self.memory_bytes,
            self._ranks,
            self.drafts,
        )

    @property
    def why_slower(self) -> str | None:
        """Why attention runs in a slower form than this device could have; None if it does not."""
        if not self.is_fused:
            return None
        from hydragen_kernels.segment import why_not_hopper  # imports Triton

        return why_not_hopper(self.source.device)

    @property
    def is_fused(self) -> bool:
        """Whether attention runs in Triton's kernels, and with it the whole decode step."""
        if self.backend == "ordered":
            return self.source.device.type == "cuda" or is_interpreting()
        return self.backend == "triton"

    @property
    def key_group(self) -> int:
        """Tokens that segments of the trie never part."""
        return backend(self.backend).key_group(self.source.heads)

    def outline(
        self, prompts: Sequence[Prompt], n: int, shard: Part | None = None, max_tokens: int = 0
    ) -> Outline:
        """What a run of n samples a task would share: its trie, and the rows of its batch.

        The run itself works on this outline's trie, so that what is shown is what is run. That of
        a shard has the prompts of the problems that it has samples of.
        """
        ranges = sample_ranges((prompt.task_id for prompt in prompts), n, shard)
        own = [prompt for prompt in prompts if prompt.task_id in ranges]
        most = min(self.max_rows, sum(map(len, ranges.values())))
        rest = most, self.key_group, stand_ins(self.source, own, max_tokens)
        return Outline.draw(own, n, self.source.shape, self.cost, *rest)
