"""pass@k: the estimator against enumeration, the intervals against their promised coverage."""

import io
import itertools
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from fractions import Fraction
from math import comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import binom

from hydragen_tree.errors import InputError, OutputError
from hydragen_tree.passk.estimate import by_false_accepts
from hydragen_tree.passk.plot import plot_curve
from hydragen_tree.passk.summary import (
    Tally,
    exact_interval,
    log_spaced_k,
    pass_at_k,
    summarise,
)
from hydragen_tree.passk.table import render_summary


@given(st.data())
def test_estimate_is_the_mean_over_all_subsets(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 9))
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    solved = sum(any(subset) for subset in subsets)
    assert pass_at_k(n, c, k) == pytest.approx(solved / len(subsets), abs=1e-15, rel=1e-13)


@given(st.data())
def test_estimate_is_exact_for_thousands_of_samples(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 3000))
    c = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    exact = 1 - Fraction(comb(n - c, k), comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-11)


def test_a_tiny_chance_keeps_its_digits() -> None:
    assert pass_at_k(10**9, 1, 1) == pytest.approx(1e-9, rel=1e-14)


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (5, 2, 6, "draw at least 6"),
        (5, 2, 0, "k = 0"),
        (5, 6, 1, "6 accepted of 5"),
        (5, -1, 1, "-1 accepted of 5"),
        (0, 0, 1, "from 0 samples"),
    ],
)
def test_estimates_that_do_not_exist_are_refused(n: int, c: int, k: int, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, []),
        (1, [1]),
        (4, [1, 2, 4]),
        (10, [1, 2, 5, 10]),
        (300, [1, 2, 5, 10, 20, 50, 100, 200, 300]),
    ],
)
def test_log_spaced_k(n: int, expected: list[int]) -> None:
    assert log_spaced_k(n) == expected


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("p", [0.0, 0.003, 0.05, 0.31, 0.5, 0.97, 1.0])
def test_exact_interval_covers_as_promised(p: float, k: int) -> None:
    """No simulation: the coverage is summed over every outcome of the binomial."""
    n, truth = 10, 1.0 - (1.0 - p) ** k
    coverage = 0.0
    for c in range(n + 1):
        low, high = exact_interval(n, c, k)
        assert 0.0 <= low <= pass_at_k(n, c, k) <= high <= 1.0
        coverage += binom.pmf(c, n, p) * (low <= truth <= high)
    assert coverage >= 0.95


def test_exact_interval_equals_published_values() -> None:
    # 7 of 20, 95 %: a textbook value of the Clopper-Pearson interval.
    assert exact_interval(20, 7, 1) == pytest.approx((0.1539, 0.5922), abs=5e-5)


def records(task_id: str, verdicts: str, **extra: object) -> list[dict[str, object]]:
    """One record a word of `verdicts`, each its own program."""
    return [
        {
            "task_id": task_id,
            "sample_index": index,
            "prompt_variant": index % 2,
            "verdict": verdict,
            "solution": f"print({index})",
            **extra,
        }
        for index, verdict in enumerate(verdicts.split())
    ]


def test_summary_counts_and_estimates() -> None:
    summary = summarise(
        [
            *records("a", "AC WA AC IE RE", difficulty="easy"),
            *records("b", "WA WA WA WA", difficulty="hard"),
        ],
        ks=[1, 2, 5],
    )
    a, b = summary.problems
    assert (a.samples, a.accepted, a.infrastructure_errors) == (4, 2, 1)
    assert [e.k for e in a.curve.estimates] == [1, 2, 4]
    assert [e.value for e in a.curve.estimates] == pytest.approx([1 / 2, 5 / 6, 1])
    assert (a.distinct_programs, a.distinct_verdicts) == (4, 3)
    assert (b.samples, b.accepted, b.curve.interval) == (4, 0, "exact")
    assert [e.k for e in summary.overall.estimates] == [1, 2, 4]
    assert [e.value for e in summary.overall.estimates] == pytest.approx([1 / 4, 5 / 12, 1 / 2])
    assert summary.asked == (1, 2, 5)
    assert summary.overall.refused == ((5, "a has only 4 samples"),)
    assert summary.overall.interval == "gaffke"
    assert list(summary.by_difficulty) == ["easy", "hard"]
    # Variant 0 drew samples 0, 2 and 4 of a (AC AC RE); variant 1 drew sample 1 (3 was an IE).
    assert summary.by_variant[0].estimates[0].value == pytest.approx((2 / 3 + 0) / 2)
    assert summary.by_variant[1].estimates[0].value == 0.0
    assert summary.by_variant[1].samples == 3
    assert summary.verdicts == {"WA": 5, "AC": 2, "IE": 1, "RE": 1}


def test_problems_are_in_the_order_of_their_names() -> None:
    names = ["HumanEval/10", "b", "HumanEval/9", "a 02", "a 1", "a", "HumanEval/0"]
    summary = summarise([record for name in names for record in records(name, "AC")])
    found = [problem.task_id for problem in summary.problems]
    assert found == ["HumanEval/0", "HumanEval/9", "HumanEval/10", "a", "a 1", "a 02", "b"]


def test_infrastructure_errors_are_never_wrong_answers() -> None:
    summary = summarise(records("a", "AC IE IE IE"))
    assert summary.overall.estimates[0].value == 1.0
    lost = summarise(records("a", "IE IE"))
    assert lost.overall.estimates == ()
    assert lost.problems[0].infrastructure_errors == 2


def test_problems_stopped_early_stay_out() -> None:
    stopped = records("b", "WA WA AC")
    stopped[-1]["until_solved"] = True
    summary = summarise([*records("a", "AC WA"), *stopped])
    assert summary.overall.problems == 1
    assert summary.overall.estimates[0].value == 0.5
    assert summary.problems[1].until_solved
    assert summary.problems[1].curve.estimates == ()


def test_distinct_programs_ignore_trailing_space() -> None:
    tally = Tally()
    for program, verdict in [
        ("print(1)", "WA"),
        ("print(1)  \n\n", "WA"),
        ("print(2)\r\n", "AC"),
        ("print( 2)", "AC"),
    ]:
        tally.add({"task_id": "a", "verdict": verdict, "solution": program})
    [problem] = tally.summary().problems
    assert problem.distinct_programs == 3
    assert problem.distinct_accepted == 2
    assert (problem.majority, problem.majority_verdict) == (2, "WA")


def test_order_of_verdicts_changes_nothing() -> None:
    judged = [
        {"task_id": "a", "verdict": verdict, "solution": f"print({number})"}
        for number, verdict in enumerate(["WA", "AC", "RE", "CE", "WA", "RE"])
    ]
    forwards, backwards = summarise(judged), summarise(judged[::-1])
    assert json.dumps(forwards.to_json()) == json.dumps(backwards.to_json())


def test_unanimous_problems_do_not_claim_certainty() -> None:
    summary = summarise([*records("a", "WA WA WA"), *records("b", "WA WA WA")], ks=[1])
    estimate = summary.overall.estimates[0]
    assert estimate.value == estimate.low == 0.0
    assert estimate.high == pytest.approx(exact_interval(2, 0, 1)[1], abs=0.01)  # 0 of 2 problems


def test_memory_stays_flat_over_many_samples() -> None:
    def stream(count: int) -> Iterator[dict[str, object]]:
        for index in range(count):
            verdict = "AC" if index % 9 == 0 else "WA"
            program = f"print({index % 50})" + "#" * 500
            yield {"task_id": "a", "verdict": verdict, "solution": program}

    summarise(stream(1000))
    peaks = []
    for count in (2000, 20000):
        tracemalloc.start()
        summarise(stream(count), ks=[1])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


@pytest.mark.parametrize("broken", [{}, {"task_id": "a"}, {"verdict": "AC"}, {"task_id": 3}])
def test_records_without_verdict_are_refused(broken: dict[str, object]) -> None:
    with pytest.raises(InputError, match="task_id"):
        summarise([broken])


def test_k_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="-k 0"):
        summarise(records("a", "AC"), ks=[0])


def test_json_is_plain_and_complete() -> None:
    summary = summarise([*records("a", "AC WA WA"), *records("b", "AC AC WA")])
    data = json.loads(json.dumps(summary.to_json()))
    assert data["overall"]["estimates"][0]["k"] == 1
    assert data["problems"][1]["verdicts"] == {"AC": 2, "WA": 1}
    assert data["distinct_verdicts"] == 2
    assert set(data["by_variant"]) == {"0", "1"}


def test_what_false_accepts_alone_would_give_is_shown() -> None:
    """The bound is what the estimator gives, in the mean, where every sample is wrong."""
    rate, n = 0.02, 12
    rated = records("rated", "AC " + "WA " * (n - 1), false_accept_rate=rate)
    summary = summarise([*rated, *records("unrated", "WA " * n)], ks=[1, 5, n])
    chances = binom.pmf(range(n + 1), n, rate)
    for curve, count in ((summary.overall, 1), (summary.problems[0].curve, 1)):
        assert curve.rated == count
        for estimate in curve.estimates:
            mean = sum(p * pass_at_k(n, c, estimate.k) for c, p in enumerate(chances))
            assert estimate.by_false_accepts == pytest.approx(mean)
    unrated = summary.problems[1].curve
    assert unrated.rated == 0
    assert {e.by_false_accepts for e in unrated.estimates} == {None}
    data = json.loads(json.dumps(summary.to_json()))
    assert data["problems"][0]["false_accept_rate"] == rate
    assert data["overall"]["estimates"][0]["by_false_accepts"] == pytest.approx(rate)

    text = io.StringIO()
    render_summary(summary, Console(file=text, width=100))
    assert "<= 0.020" in text.getvalue()
    assert "1 of 2 problems state a rate" in text.getvalue()
    text = io.StringIO()
    render_summary(summarise(records("unrated", "AC WA")), Console(file=text, width=100))
    assert "none right" not in text.getvalue()


@pytest.mark.parametrize(
    ("rate", "k", "expected"),
    [(0.0, 1000, 0.0), (1.0, 1, 1.0), (1e-3, 1000, 0.63230), (1e-12, 10**6, 1e-6)],
)
def test_false_accepts_grow_with_k(rate: float, k: int, expected: float) -> None:
    assert by_false_accepts(rate, k) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan"), "rare", [0.1]])
def test_rates_that_are_none_are_refused(rate: object) -> None:
    with pytest.raises(InputError, match=r"a: false_accept_rate .*: expected 0 to 1"):
        summarise(records("a", "AC WA", false_accept_rate=rate))


@pytest.mark.parametrize("width", [80, 120])
def test_table_fits_and_names_what_is_missing(width: int) -> None:
    stopped = records("stopped", "AC", until_solved=True)
    judged = records(
        "running-maximum", "AC WA TLE RE " * 25, difficulty="easy", false_accept_rate=0.01
    )
    other = records("two-sum", "AC CE OLE MLE " * 25, difficulty="hard")
    summary = summarise(
        [*judged, *other, *stopped, *records("lost", "IE")], ks=[1, 2, 5, 10, 100, 500]
    )
    text = io.StringIO()
    render_summary(summary, Console(file=text, width=width))
    shown = text.getvalue()
    assert all(len(line) <= width for line in shown.splitlines())
    for expected in ("running-maximum", "variant 1", "hard", "pass@500 is refused", "0.250"):
        assert expected in shown
    assert "only until solved: stopped" in shown
    assert "nothing could be judged: lost" in shown
    assert "1 samples met an infrastructure error" in shown


@pytest.mark.parametrize("width", [30, 40, 45, 60, 80])
def test_narrow_table_leaves_out_columns_and_says_which(width: int) -> None:
    everything = records("running-maximum", "AC WA TLE MLE OLE RE CE IE " * 30)
    summary = summarise([*everything, *records("two-sum", "AC " * 200)], ks=[1, 10, 100, 200])
    text = io.StringIO()
    render_summary(summary, Console(file=text, width=width))
    shown, _, unseen = text.getvalue().partition("no room in every table for ")
    unseen = " ".join(unseen.split()).partition(":")[0]
    assert "…" not in shown  # neither a heading nor a number is cut off
    tables, _, _ = shown.partition("95 % intervals: Gaffke")
    assert all(len(line) <= width for line in tables.splitlines())
    assert "running-maxi" in shown or width < 40  # there it is folded
    (first,) = (e for e in summary.overall.estimates if e.k == 1)
    assert f"{first.low:.3f}-{first.high:.3f}" in shown
    for heading in ("pass@10", "pass@100", "TLE", "IE", "distinct", "majority", "samples"):
        assert heading in shown.split() or heading in unseen.split(", ")


@pytest.mark.parametrize("problems", [1, 3, 9])
@pytest.mark.parametrize("name", ["curve.png", "curve.svg"])
def test_plot_is_written_and_reproducible(tmp_path: Path, name: str, problems: int) -> None:
    summary = summarise(
        record for i in range(problems) for record in records(f"p{i}", "AC WA WA WA WA " * (i + 1))
    )
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        plot_curve(summary, tmp_path / folder / name)
    data = (tmp_path / "one" / name).read_bytes()
    assert data == (tmp_path / "two" / name).read_bytes()
    assert data.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")


def test_plot_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    summary = summarise(records("a", "AC WA"))
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        plot_curve(summary, tmp_path / "curve.pdf")
    with pytest.raises(InputError, match="no problem"):
        plot_curve(summarise(records("a", "IE")), tmp_path / "curve.png")
    with pytest.raises(OutputError, match="No such file"):
        plot_curve(summary, tmp_path / "missing" / "curve.png")


def test_neither_torch_nor_matplotlib_is_imported_without_need() -> None:
    code = (
        "import sys, hydragen_tree.passk.summary, hydragen_tree.problem.importing, "
        "hydragen_tree.sample.export; "
        "print(sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert shown.stdout == "[]\n"
