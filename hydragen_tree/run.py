"""The whole program in one sentence: problems in, pass@k out.

    Problem -> Prompt -> Trie -> Plan -> KVCache -> Branch ... -> Sample -> Verdict -> pass@k

Each part is a room of this package; what `run` calls is the door of each. A judge is optional:
without one the sentence ends at the samples, as `hydragen-sample` does.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hydragen_tree.errors import InputError
from hydragen_tree.problem.types import Problem
from hydragen_tree.prompt.prompts import Prompt, prompts_from_sources
from hydragen_tree.sample.joining import Late
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.sample.shard import Shard
from hydragen_tree.settings import SamplingSettings
from hydragen_tree.spread.devices import device_crew, find_devices, usual_devices
from hydragen_tree.spread.spread_sampler import SpreadSampler

if TYPE_CHECKING:  # a run that only samples does not wait for scipy
    from hydragen_tree.judge.judge import Judge
    from hydragen_tree.passk.summary import Summary

_USUAL = SamplingSettings()


def run(
    problems: Sequence[Problem | Prompt],
    n: int,
    *,
    sampler: Sampler,
    devices: str | Sequence[str] | None = None,
    settings: SamplingSettings = _USUAL,
    done: Mapping[str, Collection[int]] | None = None,
    shard: Shard | None = None,
    late: Late | None = None,
    keep: Callable[[Sample], None] | None = None,
    judge: "Judge | None" = None,
    ks: Sequence[int] = (),
) -> "Summary | None":
    """Draws n samples of every problem, and judges each as it finishes.

        with Judge() as judge:
            summary = run(load_problems(["problems/"]), 100, sampler=sampler, judge=judge)

    Args:
        problems: what to solve; prompts that are built already are drawn from as they are.
        n: samples a problem.
        sampler: the model's.
        devices: draw with a process on each of these: `all` accelerators of this machine, their
            numbers (`0,1,3`), or names (`cpu,cpu`), which may come as a list, too. The sampler's
            own weights are then not loaded. None: the sampler draws itself, or, where several
            devices have its model together, on the first of them.
        settings: how to sample.
        done: by task id, sample indices that exist already and are not drawn again.
        shard: draw only these samples; pass@k is then of them.
        late: gives further prompts while samples are drawn, see `Sampler.sample`; not with several
            devices, or a judge.
        keep: told of every sample as it finishes, before it is judged: a file's `write`, a list's
            `append`.
        judge: judges the programs; None: they are only drawn.
        ks: for which pass@k is estimated; empty: as many as n allows.

    Returns:
        Solved problems and pass@k; None without a judge.

    Raises:
        InputError: a prompt does not fit, there are no such devices, or a judge is given and not
            every source is a problem.
        CapacityError: not even one branch fits into the memory there is.
    """
    prompts = prompts_from_sources(problems, sampler.tokenizer, seed=settings.seed)
    with ExitStack() as stack:
        is_shared = sampler.source.ranks > 1 and not isinstance(sampler, SpreadSampler)
        if devices is not None or is_shared:
            sampler = stack.enter_context(_spread(sampler, devices))
        drawn = sampler.sample(prompts, n, settings, done=done, shard=shard, late=late)
        samples = _kept(drawn, keep)
        if judge is None:
            for _ in samples:
                pass
            return None
        from hydragen_tree.passk.summary import summarise

        return summarise(_judged(samples, _by_id(problems), judge), ks)


def _spread(sampler: Sampler, devices: str | Sequence[str] | None) -> SpreadSampler:
    if isinstance(sampler, SpreadSampler):
        raise InputError("the sampler has workers of its own", setting="devices")
    source = sampler.source
    named = usual_devices(source.device, source.ranks) if devices is None else find_devices(devices)
    return SpreadSampler(sampler, device_crew(sampler, named))


def _kept(samples: Iterable[Sample], keep: Callable[[Sample], None] | None) -> Iterator[Sample]:
    for sample in samples:
        if keep is not None:
            keep(sample)
        yield sample


def _judged(
    samples: Iterable[Sample], problems: Mapping[str, Problem], judge: "Judge"
) -> Iterator[dict[str, Any]]:
    """What pass@k reads of every sample: its own fields, and those of its verdict."""
    items = ((problems[sample.task_id], sample.solution, sample) for sample in samples)
    for sample, verdict in judge.judge_stream(items):
        problem = problems[sample.task_id]
        yield {
            **asdict(sample),
            **verdict.to_json(),
            "difficulty": problem.difficulty,
            "false_accept_rate": problem.false_accept_rate,
        }


def _by_id(problems: Sequence[Problem | Prompt]) -> dict[str, Problem]:
    found = {problem.id: problem for problem in problems if isinstance(problem, Problem)}
    if len(found) < len(problems):
        raise InputError("a judge needs problems, with tests: some sources are bare prompts")
    return found
