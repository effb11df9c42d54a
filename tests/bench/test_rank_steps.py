"""Steps of a model that two processes of a CPU have together; and ranks that fail."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("triton")


from hydragen_bench import configs, decode, peer_vllm, plot, rank_steps
from hydragen_bench.peer_vllm import Vllm
from hydragen_bench.peers import Peer
from hydragen_cli import bench
from hydragen_cli.bench_measures import measure
from hydragen_tree.errors import HydragenError, InputError

POINT = configs.Point(2, 8, 4)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small architecture, kernels under Triton's interpreter, no GPU."""
    config = configs._llama(32, 32, 3, 2, 2, 64)
    config.layer_types = ["full_attention"] * 3
    monkeypatch.setitem(configs.CONFIGS, "small", config)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # of ranks
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(rank_steps, "_LAST_WORDS_S", 1.0)
    monkeypatch.setattr(decode, "CHUNK_STEPS", 2)
    few = "from hydragen_tree.branch import device_stepper; device_stepper.CHUNK_STEPS = 2; "
    few += "from hydragen_bench import decode; decode.CHUNK_STEPS = 2; from hydragen_bench"
    start = rank_steps._START.replace("from hydragen_bench", few, 1)
    monkeypatch.setattr(rank_steps, "_START", start)


def ranks_do(monkeypatch: pytest.MonkeyPatch, *scripts: str) -> Iterator[object]:
    """The answers of ranks that do this, each its own; `answers` is their file."""
    start = f"import sys, os, time; answers = sys.argv[3]; exec({scripts!r}[int(sys.argv[2])])"
    monkeypatch.setattr(rank_steps, "_START", start)
    return rank_steps._answers({"size": len(scripts)})


def test_two_ranks_beside_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rank_steps.run("small@1", 2, [POINT])
    assert (found["ranks"], found["layers"], found["all_layers"]) == (2, 1, 3)
    [row] = found["rows"]
    assert row.keys() == {field.name for field in fields(rank_steps.Row)}
    assert (row["rows"], row["prefix"], row["new_tokens"]) == POINT
    assert row["sums_by"] == "gloo"
    assert 0 < row["sums_ms"] < row["step_ms"]
    assert row["tokens_s"] == pytest.approx(1e3 * POINT.rows / row["step_ms"])
    assert row["ratio"] == pytest.approx(row["alone_ms"] / row["step_ms"])
    out = capsys.readouterr().out
    assert "2 x cpu; small, 1 of its 3 layers, random weights in float32" in out
    header, line = out.splitlines()[-2:]
    assert line.split()[:3] == [str(size) for size in POINT]
    assert len(line.split()) == len(header.split()) + len(["sums", "by", "gloo"])
    plot.plot("decode", found, tmp_path / "figures.svg")


def test_what_memory_does_not_hold_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that is too large for one device, and a batch that is so for two."""
    step = {"prefill_s": 1.0, "step_ms": 4.0}
    sums = {"sums_by": "nccl", "sums_ms": 2.0, "library_ms": 2.0}
    told = {1: [None, None], 2: [{**step, **sums}, None]}
    monkeypatch.setattr(rank_steps, "_answers", lambda job: iter(told[job["size"]]))
    [row] = rank_steps.run("small", 2, [POINT, POINT])["rows"]
    assert (row["step_ms"], row["alone_ms"], row["ratio"]) == (4.0, None, None)
    held, too_large = capsys.readouterr().out.splitlines()[-2:]
    assert held.split()[-7:] == [*"----", "sums", "by", "nccl"]
    assert too_large.endswith("does not fit")


def test_vllm_beside_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = {"prefill_s": 1.0, "step_ms": 4.0}
    sums = {"sums_by": "nccl", "sums_ms": 2.0, "library_ms": 2.0}
    large = configs.Point(9, 8, 4)
    told = {1: [step, None], 2: [{**step, **sums}, None]}
    monkeypatch.setattr(rank_steps, "_answers", lambda job: iter(told[job["size"]]))
    asked: list[object] = []

    def measured(*given: object) -> Vllm:
        asked.extend(given)
        return Vllm("9.9", True, {POINT: 125.0})

    monkeypatch.setattr(peer_vllm, "measure", measured)
    peer = Peer("vllm-cascade")
    found = rank_steps.run("small@1", 2, [POINT, large], peer)
    assert asked == ["small@1", [POINT], peer, 2]
    assert found["vllm"] == {"version": "9.9", "cascade": True}
    assert [row["vllm_tokens_s"] for row in found["rows"]] == [125.0]
    *_, said, heading, row = capsys.readouterr().out.splitlines()
    assert "vllm 9.9" in said
    assert heading == rank_steps.HEADING
    assert row.split()[-5:-3] == ["125", "4.00"]  # 500 tokens a second


def test_answers_come_as_they_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_steps, "SILENCE_S", 60.0)
    told = "".join(f"{line}\n" for line in ('{"is_made": true}', "null", '{"step_ms": 3}'))
    goes_on = f"own._measure = lambda *to: (to[2]({told!r}), time.sleep(600))"
    main = "sys.path[:] = sys.argv[4:]; from hydragen_bench import rank_child as own; "
    main += f"{goes_on}; own.main(sys.argv[1], 0, answers)"
    answers = ranks_do(monkeypatch, main, "time.sleep(600)")
    assert [next(answers), next(answers)] == [None, {"step_ms": 3}]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        ("sys.exit('no room')", r"rank 1 of 2 failed, exit code 1:\nno room$"),
        ("os.kill(os.getpid(), 9)", r"rank 1 of 2 failed, was killed by signal 9:$"),
    ],
)
def test_a_rank_that_ends_ends_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, last: str, said: str
) -> None:
    """Whatever the other does: it notices, or goes on."""
    for other in ("sys.exit('RankLostError: another rank does not answer')", "time.sleep(600)"):
        pid = tmp_path / "pid"
        other = f"open({str(pid)!r}, 'w').write(str(os.getpid())); {other}"
        with pytest.raises(HydragenError, match=said):
            next(ranks_do(monkeypatch, other, f"time.sleep(0.5); {last}"))
        assert not is_running(int(pid.read_text()))


def test_ranks_that_say_nothing_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_steps, "SILENCE_S", 1.0)
    waits = "print('waiting', flush=True); time.sleep(600)"
    with pytest.raises(
        HydragenError, match=r"2 ranks have said nothing for 1 s.*\nrank 0: waiting"
    ):
        next(ranks_do(monkeypatch, waits, waits))


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("ranks", "layers", "said"),
    [
        (2, 4, "layers 4: small has 3"),
        (3, 1, "tensor_parallel 3: num_attention_heads of small is 2, which 3 ranks cannot share"),
    ],
)
def test_what_is_not_measured_is_refused_before_ranks_start(
    ranks: int, layers: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_steps, "_answers", None)
    with pytest.raises(InputError, match=said):
        rank_steps.run(f"small@{layers}", ranks, [POINT])


def test_the_command_measures_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(rank_steps, "run", lambda *args: asked.extend(args) or {})
    given = dict.fromkeys(bench._ONLY)
    given |= {"architecture": "llama-3.1-70b", "points": "128x4096,32x1024x64"}
    given |= {"tensor-parallel": 2, "layers": 40}
    measure("decode", given, on_cpu=False)
    assert asked == ["llama-3.1-70b@40", 2, [(128, 4096, 128), (32, 1024, 64)], None]
