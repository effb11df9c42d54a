"""The whole program as one function, with the shipped model and a real judge."""

from pathlib import Path

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.judge import Judge
from hydragen_tree.problem.reading import load_problems
from hydragen_tree.prompt.prompts import Prompt, prompts_from_sources
from hydragen_tree.run import run
from hydragen_tree.sample.sample import Sample
from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.settings import SamplingSettings

PROBLEMS = Path(__file__).parents[1] / "problems"
NAMES = ("closest-heights", "even-squares")
SETTINGS = SamplingSettings(max_tokens=120)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler.from_pretrained()


def test_problems_in_pass_at_k_out(sampler: Sampler) -> None:
    problems = load_problems([str(PROBLEMS / f"{name}.yaml") for name in NAMES])
    kept: list[Sample] = []
    with Judge(cache=False) as judge:
        summary = run(
            problems, 8, sampler=sampler, settings=SETTINGS, keep=kept.append, judge=judge, ks=[1]
        )
        by_hand = {
            problem.id: sum(
                judge.judge(problem, sample.solution).accepted
                for sample in kept
                if sample.task_id == problem.id
            )
            for problem in problems
        }
    assert summary is not None
    assert len(kept) == 16
    assert {one.task_id: one.accepted for one in summary.problems} == by_hand
    assert 0 < sum(by_hand.values()) < 16  # the shipped model solves one of them now and then


def test_without_a_judge_the_sentence_ends_at_the_samples(sampler: Sampler) -> None:
    problems = load_problems([str(PROBLEMS / "dry-spell.yaml")])
    kept: list[Sample] = []
    done = {problems[0].id: range(1, 3)}
    found = run(problems, 4, sampler=sampler, settings=SETTINGS, done=done, keep=kept.append)
    assert found is None
    assert sorted(sample.sample_index for sample in kept) == [0, 3]


def test_a_judge_wants_problems(sampler: Sampler) -> None:
    prompt: Prompt = prompts_from_sources(["def f():"], sampler.tokenizer)[0]
    with Judge(cache=False) as judge, pytest.raises(InputError, match="bare prompts"):
        run([prompt], 1, sampler=sampler, settings=SamplingSettings(max_tokens=2), judge=judge)
