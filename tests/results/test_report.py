"""The page of a run, without a browser: its parts, its trees, and that samples stay text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hydragen_tree.errors import OutputError
from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.results.judged_sample import JudgedSample
from hydragen_tree.results.report import write_report
from hydragen_tree.results.report.drawn import DrawnTask, Gathering
from hydragen_tree.results.report.program_tree import program_tree
from hydragen_tree.results.results import Results
from hydragen_tree.sample.lines import SampleLine
from tests.results.report_run import HOSTILE, PROGRAMS, write_run


class Page(HTMLParser):
    """Reads a page: its elements in order, their text, and what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(path: Path) -> Page:
    target = path.parent / "report.html"
    write_report(Results.read(path), target)
    return Page(target.read_text(encoding="utf-8"))


def data_of(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.text["script"][0])
    return found


def test_the_page_has_its_parts(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "night run"))
    assert page.open == []
    assert page.text["h1"] == ["night run"]
    assert page.text["h2"] == [
        "At a glance",
        "pass@k",
        "Problems",
        "Programs",
        "Time and tokens",
        "Settings",
    ]
    for tag in ("header", "nav", "main", "footer"):
        assert len(page.all(tag)) == 1, tag
    assert len(page.all("caption")) == len(page.all("table")) == 3
    assert all(svg.get("aria-label") for svg in page.all("svg") if svg.get("role") == "img")
    said = " ".join(page.text["dd"])
    assert "50 tokens and 5.0 samples a second" in said
    assert "90: samples that had drawn the same tokens shared a row, which spared 60 (40%)" in said
    assert "400 (10 times as many)" in said
    assert "2.0 MiB at most" in said
    assert "0.8" in page.text["dd"]
    labels = [svg["aria-label"] for svg in page.all("svg")]
    assert "3 AC, 2 WA" in labels
    # (3/5 + 0 + 1) / 3 at k = 1; two of three problems are solved at k = 5
    assert any(
        "0.533 at k = 1" in str(label) and "0.667 at k = 5" in str(label) for label in labels
    )


def test_nothing_is_fetched_and_nothing_else_runs(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    links = [value for _, attributes in page.elements for value in attributes.values() if value]
    assert not [link for link in links if re.match(r"\w+:|//", link) and link != "data:,"]
    assert not [script for script in page.all("script") if "src" in script]
    (policy,) = [m["content"] for m in page.all("meta") if "http-equiv" in m]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert "url(" not in page.text["style"][0]


def test_samples_stay_text(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run"))
    assert len(page.all("script")) == 2
    assert page.all("b") == [{}] * 3  # of the legend: AC, WA, RE; none of a task's name
    assert page.all("i") == []
    data = data_of(page)
    assert [task["id"] for task in data["tasks"]] == list(PROGRAMS)
    texts = [text for text, _ in paths(data["tasks"][0]["tree"])]
    assert HOSTILE + "\n" in texts


def paths(node: dict[str, Any], before: str = "") -> list[tuple[str, dict[str, Any]]]:
    """The programs of a tree, each put together from its branches."""
    text = before + node["t"]
    found = [(text, node)] if "p" in node else []
    return found + [path for child in node.get("c", []) for path in paths(child, text)]


def test_branches_spell_the_programs(tmp_path: Path) -> None:
    data = data_of(page_of(write_run(tmp_path / "run")))
    tree = data["tasks"][0]["tree"]
    assert (tree["t"], tree["n"], tree["s"]) == ("", 5, 3)
    assert [(child["t"], child["n"], child.get("s", 0)) for child in tree["c"]] == [
        ("n = int(input())\nprint(n", 3, 2),
        ("number = input()\nprint(number)\n", 1, 1),
        (HOSTILE + "\n", 1, 0),
    ]
    twice = tree["c"][0]["c"][0]
    assert (twice["t"], twice["p"]["v"], twice["p"]["i"]) == (")\n", {"AC": 2}, [0, 2])
    wrong = tree["c"][0]["c"][1]["p"]
    assert (wrong["f"], wrong["m"]) == (1, "token 1: expected '<5>', got '6'")
    assert data["tasks"][0]["first"] == 0
    assert data["tasks"][1]["first"] is None
    # A problem whose samples are one program has that program for its root.
    assert data["tasks"][1]["tree"]["p"]["v"] == {"RE": 5}


def test_a_run_that_is_not_judged_or_described_has_a_page(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", judged=False, manifest=False))
    assert page.open == []
    said = " ".join(text for texts in page.text.values() for text in texts)
    assert "not judged yet" in said
    assert "There is nothing to estimate pass@k from." in said
    assert said.count("there is no manifest beside the samples") == 2
    assert data_of(page)["tasks"][0]["judged"] == 0


def judged(index: int, code: str, status: str = "WA") -> JudgedSample:
    line = SampleLine(index + 1, "t", index, None, code, None, {"solution": code})
    return JudgedSample(line, Verdict(status))  # type: ignore[arg-type]


def drawn(samples: list[JudgedSample], most: int = 1000) -> DrawnTask:
    gathering = Gathering(most)
    assert list(gathering.watch(samples)) == samples
    return gathering.tasks["t"]


def test_a_tree_says_what_it_leaves_out() -> None:
    codes = [f"x = {i % 3}\ny = {i}\nprint({'z' * 40})\n" for i in range(300)]
    samples = [judged(i, code, "AC" if i == 7 else "WA") for i, code in enumerate(codes)]
    tree = program_tree(drawn(samples).programs.values(), room_bytes=4000)
    assert tree is not None
    assert len(json.dumps(tree)) < 5000
    assert (tree["n"], tree["s"]) == (300, 1)

    def check(node: dict[str, Any]) -> None:
        children = node.get("c", [])
        if "p" in node:
            return
        more = node.get("more", (0, 0, 0))
        assert sum(child["n"] for child in children) + more[1] == node["n"]
        assert sum(child.get("s", 0) for child in children) + more[2] == node.get("s", 0)
        assert [child["n"] for child in children] == sorted(
            (c["n"] for c in children), reverse=True
        )
        for child in children:
            check(child)

    check(tree)
    shown = paths(tree)
    assert 5 < len(shown) < 100
    assert any(node["p"]["v"] == {"AC": 1} for _, node in shown)  # right ones come first
    whole = program_tree(drawn(samples).programs.values(), room_bytes=1_000_000)
    assert whole is not None
    assert sorted(text for text, _ in paths(whole)) == sorted(codes)


def test_a_program_that_others_go_on_with_ends_where_it_ends() -> None:
    samples = [judged(0, "print(1)"), judged(1, "print(1)\nprint(2)"), judged(2, "")]
    tree = program_tree(drawn(samples).programs.values(), room_bytes=10_000)
    assert tree is not None
    assert sorted(text for text, _ in paths(tree)) == ["", "print(1)", "print(1)\nprint(2)"]
    assert program_tree([], room_bytes=10_000) is None


def test_gathering_keeps_right_programs_and_counts_the_others() -> None:
    samples = [judged(i, f"wrong{i}") for i in range(40)]
    samples += [judged(40 + i, f"right{i}", "AC") for i in range(40)]
    samples += [judged(80, "right0", "AC"), judged(81, "wrong39")]
    task = drawn(samples, most=30)
    assert len(task.programs) == 30
    assert (task.unkept, task.unkept_solved) == (25 + 25 + 1, 25)
    assert task.first_solved == 40
    assert task.programs["python", "right0"].samples == 2


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    results = Results.read(write_run(tmp_path / "run"))
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(results, tmp_path / "none" / "report.html")


def test_samples_that_verdicts_made_needless_are_not_missing(tmp_path: Path) -> None:
    samples = write_run(tmp_path / "run")
    manifest = tmp_path / "run" / "samples.jsonl.manifest.json"
    record = {**json.loads(manifest.read_text()), "n": 7}
    for stopping, said in ((None, "6 missing"), ({"until_solved": 3}, "6 not needed")):
        ended = {"stopping": stopping, "result": {} if stopping else None}
        manifest.write_text(json.dumps({**record, **ended}))
        page = page_of(samples)
        assert said in page.text["span"]
        assert ("until_solved" in page.text["dt"]) == bool(stopping)
