"""Benchmarks' figures as pictures, and the options of `hydragen bench`."""

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hydragen_bench import cpu
from hydragen_bench.plot import plot
from hydragen_cli import main
from hydragen_tree.errors import InputError, OutputError

CEILINGS = {
    "device": "a card",
    "copy_tb_s": 4.0,
    "matmul_tflops": 800.0,
    "sustained_tflops": 700.0,
}
TIMES = {"segments_us": 1.0, "tails_us": 1.0, "total_us": 4.0, "roofline_us": 3.0}
SPEEDS = {
    "tokens_s": 900.0,
    "roofline_tokens_s": 1000.0,
    "sustained_tokens_s": 950.0,
    "no_attention_tokens_s": 940.0,
    "unshared_tokens_s": 200.0,
}
SPENT = {"seconds": 2.0, "cpu_s": 1.0, "accepted": 3}
FIGURES: dict[str, dict[str, Any]] = {
    "attention": {
        **CEILINGS,
        "rows": [
            {"shape": "wide one", **TIMES, "flashinfer_us": 5.0},
            {"shape": "deep one", **TIMES, "flashinfer_us": None},
        ],
    },
    "choose": {
        **CEILINGS,
        "rows": [
            {
                "rows": 32,
                "vocab": 99,
                "settings": name,
                "ours_us": 10.0,
                "read_once_us": 1.0,
                "sorted_us": 100.0,
                "flashinfer_us": theirs,
            }
            for name, theirs in (("plain", 20.0), ("greedy", None))
        ],
    },
    "decode": {
        **CEILINGS,
        "architecture": "codellama-13b",
        "rows": [
            {"rows": 32, "prefix": 1024, "new_tokens": 128, **SPEEDS, "vllm_tokens_s": None},
            {"rows": 512, "prefix": 4096, "new_tokens": 128, **SPEEDS, "vllm_tokens_s": None},
        ],
    },
    "tree": {
        "architecture": "codellama-7b",
        "problems": 12,
        "samples": 128,
        "new_tokens": 512,
        "rows": [
            {"way": "single level", "rows": 220, "seconds": 95.0},
            {"way": "tree, larger", "rows": 384, "seconds": 50.0},
        ],
    },
    "cpu": {"threads": 2, "prefix": [{"tokens": 512, "tree_s": 1.0, "generate_s": 20.0}]},
    "judge": {
        "workers": 2,
        "isolation": "bubblewrap",
        "sets": [
            {"name": "f", "samples": 9, "ours": SPENT, "one_call": SPENT, "call_a_test": None}
        ],
    },
}


def words(svg: Path) -> str:
    """All text of a picture; matplotlib writes it as comments beside the glyphs."""
    text = svg.read_text()
    ET.fromstring(text)
    return " ".join(line.strip("<!- >\n") for line in text.splitlines() if "<!--" in line)


@pytest.mark.parametrize("bench", FIGURES)
def test_every_bench_is_drawn_the_same_each_time(bench: str, tmp_path: Path) -> None:
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    plot(bench, FIGURES[bench], first)
    plot(bench, json.loads(json.dumps(FIGURES[bench])), second)
    assert first.read_bytes() == second.read_bytes()
    plot(bench, FIGURES[bench], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


SAVED = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.json"))


@pytest.mark.parametrize("path", SAVED, ids=[path.stem for path in SAVED])
def test_saved_figures_say_what_they_were_measured_on_and_are_drawn(
    path: Path, tmp_path: Path
) -> None:
    figures = json.loads(path.read_text())
    assert figures["versions"]["date"]
    assert figures.keys() & {"device", "machine", "devices"}
    if figures["bench"] not in ("fit", "ranks", "run", "stack"):
        plot(figures["bench"], figures, tmp_path / "saved.svg")
        drawn = path.with_suffix(".svg")
        assert not drawn.exists() or words(drawn) == words(tmp_path / "saved.svg")


def test_columns_that_nobody_measured_are_not_in_the_legend(tmp_path: Path) -> None:
    plot("decode", FIGURES["decode"], tmp_path / "without.svg")
    assert "unshared" in words(tmp_path / "without.svg")
    assert "vLLM" not in words(tmp_path / "without.svg")
    rows = [{**row, "vllm_tokens_s": 500.0} for row in FIGURES["decode"]["rows"]]
    plot("decode", {**FIGURES["decode"], "rows": rows}, tmp_path / "with.svg")
    assert "vLLM" in words(tmp_path / "with.svg")
    plot("attention", FIGURES["attention"], tmp_path / "peer.svg")
    for word in ("FlashInfer cascade", "wide one", "deep one", "a card"):
        assert word in words(tmp_path / "peer.svg")


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="bench fit has nothing to draw"):
        plot("fit", {}, tmp_path / "a.svg")
    with pytest.raises(InputError, match=r"ending in .png or .svg"):
        plot("tree", FIGURES["tree"], tmp_path / "a.pdf")
    with pytest.raises(InputError, match="not figures of bench tree"):
        plot("tree", FIGURES["cpu"], tmp_path / "a.svg")
    with pytest.raises(OutputError, match="No such file"):
        plot("tree", FIGURES["tree"], tmp_path / "nowhere" / "a.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'hydragen-tree\[plot\]'"):
        plot("tree", FIGURES["tree"], tmp_path / "a.svg")


Hydragen = Callable[..., tuple[int, str]]


@pytest.fixture
def hydragen_bench(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Hydragen:
    """Runs `hydragen bench` in an empty directory; its exit code and what it said."""

    def invoke(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hydragen", "bench", *args])
        with pytest.raises(SystemExit) as ended:
            main.run()
        return int(ended.value.code or 0), " ".join(capsys.readouterr().err.split())

    return invoke


def test_figures_are_written_and_drawn_again(
    hydragen_bench: Hydragen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "run", lambda console, problem: FIGURES["cpu"])
    assert hydragen_bench("cpu", "-o", "cpu.json", "--plot", "first.svg") == (0, "")
    saved = json.loads(Path("cpu.json").read_text())
    assert saved["bench"] == "cpu"
    assert {"date", "python", "torch"} <= saved["versions"].keys()
    assert saved["prefix"] == FIGURES["cpu"]["prefix"]
    monkeypatch.delattr(cpu, "run")
    assert hydragen_bench("cpu", "--figures", "cpu.json", "--plot", "again.svg") == (0, "")
    assert Path("again.svg").read_bytes() == Path("first.svg").read_bytes()
    code, said = hydragen_bench("tree", "--figures", "cpu.json", "--plot", "again.svg")
    assert (code, "expected figures of bench tree, got cpu" in said) == (2, True)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("cpu --full", "--full: only bench tree takes it"),
        ("tree --points 1x2", "--points: only bench decode or run takes it"),
        ("attention --problem p.yaml", "--problem: only bench cpu or judge or stack takes it"),
        ("decode --points 32", "--points 32: expected ROWSxPREFIX[xNEW]"),
        ("decode --points 32x0", "--points 32x0: expected ROWSxPREFIX[xNEW]"),
        ("decode --points 32x1x2x3", "--points 32x1x2x3: expected ROWSxPREFIX[xNEW]"),
        ("decode --points 32x1,", "expected ROWSxPREFIX[xNEW]"),
        ("decode --kv-dtype fp8 --against vllm", "--kv-dtype: a peer is measured with"),
        ("decode --weights fp8 --against vllm", "--weights: a peer is measured with"),
        ("decode --batch-invariant --kv-dtype fp8", "two modes, without --kv-dtype"),
        ("tree --layers 2", "--layers: only bench decode or run takes it"),
        ("run --layers 2", "--layers 2: is of an --architecture"),
        ("run --layers 33 --architecture codellama-7b", "--layers 33: codellama-7b has 32"),
        ("decode --tensor-parallel 2 --weights fp8", "with one device, without --weights"),
        ("decode --tensor-parallel 2 --batch-invariant", "device, without --batch-invariant"),
        ("tree --weights fp8", "--weights: only bench decode or run takes it"),
        ("decode --weights int8", "--weights int8: on a GPU, expected fp8"),
        ("decode --peer-python x", "--peer-python: whose Python?"),
        ("decode --against vllm --peer-python ./nowhere", "--peer-python ./nowhere: No such file"),
        ("fit --plot f.svg", "bench fit has nothing to draw"),
        ("cpu --plot f.pdf", "expected a name ending in .png or .svg"),
        ("cpu --figures f.json", "name the picture, --plot FILE"),
        ("cpu --figures f.json --plot f.svg", "--figures f.json: No such file"),
        ("cpu -o nowhere/f.json", "no directory nowhere"),
    ],
)
def test_bad_options_end_before_anything_is_measured(
    hydragen_bench: Hydragen, args: str, said: str
) -> None:
    code, message = hydragen_bench(*args.split())
    assert code == 2
    assert said in message
