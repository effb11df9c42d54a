"""One run over several processes: sampled in shards, joined, judged, resumed."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hydragen_cli.options import flag_of
from hydragen_cli.program import load
from hydragen_tree.errors import InputError
from tests.cli.test_sample import start, wait_for_lines
from tests.forked import run_command
from tests.judge.test_eval import command

PROBLEM = """
id: {id}
statement: Read an integer n and print {what}.
tests: [{{input: "3\\n", output: "{output}\\n", sample: true}}]
few_shot:
  shots: 1
  variants: 3
  pool:
    - {{id: squares, statement: Print n squared., solution: "print(int(input()) ** 2)"}}
    - {{id: hello, statement: Print hello., solution: "print('hello')"}}
    - {{id: bye, statement: Print bye., solution: "print('bye')"}}
"""
RUN = ["problems", "-n", "25", "--max-tokens", "24", "--seed", "3", "--quiet"]
N_SAMPLES = 75
_UNSTABLE = ("logprob", "sampled_logprob")  # in the last digits: sums depend on the batch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three problems; the whole run's file, and those of three shards."""
    folder = tmp_path_factory.mktemp("merge")
    (folder / "problems").mkdir()
    for name, what, output in [("twice", "2n", 6), ("thrice", "3n", 9), ("next", "n + 1", 4)]:
        text = PROBLEM.format(id=name, what=what, output=output)
        (folder / "problems" / f"{name}.yaml").write_text(text)
    runs = [["-o", "whole.jsonl"]]
    runs += [
        ["--shard", f"{i}/3", "-o", f"shard-{i}.jsonl", "--max-rows", f"{9 * i}"] for i in (1, 2, 3)
    ]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("HYDRAGEN_")}
    for options in runs:
        env = {**kept, "XDG_CONFIG_HOME": os.devnull}
        ran = run_command("run_sample", *RUN, *options, cwd=folder, env=env)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    return folder


@pytest.fixture
def home(folder: Path, own_home: Path) -> Path:
    """A folder of its own with those files."""
    for path in folder.iterdir():
        (own_home / path.name).symlink_to(path)
    return own_home


def hydragen(*args: str, code: int = 0) -> tuple[str, str]:
    """What a command writes to stdout and stderr."""
    ran = run_command("run", *args)
    assert ran.returncode == code, ran.stderr
    return ran.stdout, ran.stderr


def samples_of(text: str) -> list[dict[str, Any]]:
    """The lines, sorted by task and index."""
    lines = [json.loads(line) for line in text.splitlines()]
    return sorted(lines, key=lambda line: (line["task_id"], line["sample_index"]))


def assert_same(text: str, expected: str) -> None:
    """Line for line the same samples, after sorting."""
    for line, other in zip(samples_of(text), samples_of(expected), strict=True):
        for name in _UNSTABLE:
            assert line.pop(name) == pytest.approx(other.pop(name), abs=1e-3)
        assert json.dumps(line) == json.dumps(other)


SHARDS = ("shard-1.jsonl", "shard-2.jsonl", "shard-3.jsonl")


def test_three_shards_are_the_file_of_one_process(home: Path) -> None:
    whole = (home / "whole.jsonl").read_text()
    assert [len((home / name).read_text().splitlines()) for name in SHARDS] == [25, 25, 25]
    assert hydragen("merge", *SHARDS, "-o", "all.jsonl") == (
        "",
        "75 samples of 3 problems: complete\n",
    )
    assert_same((home / "all.jsonl").read_text(), whole)
    manifests = [
        json.loads((home / f"{name}.jsonl.manifest.json").read_text()) for name in ("all", "whole")
    ]
    sessions = [manifest.pop("sessions") for manifest in manifests]
    assert manifests[0] == manifests[1]
    assert [len(s) for s in sessions] == [3, 1]

    out, _ = hydragen("merge", *reversed(SHARDS), "-o", "-")
    assert sorted(out.splitlines()) == sorted((home / "all.jsonl").read_text().splitlines())

    before = (home / "all.jsonl").read_bytes()
    _, said = hydragen("merge", *SHARDS, "-o", "all.jsonl", code=2)
    assert "--output all.jsonl: exists; name another file, or use --force" in said
    hydragen("merge", *reversed(SHARDS), "-o", "all.jsonl", "--force", "--quiet")
    assert (home / "all.jsonl").read_bytes() != before  # the order of the parts


def test_gaps_are_drawn_by_resuming(home: Path) -> None:
    whole = (home / "whole.jsonl").read_text()
    given = ["merge", "shard-1.jsonl", "shard-3.jsonl", "-o", "all.jsonl"]
    gap = "25 of 75 samples of 3 problems missing: 'thrice' 0 to 24"
    assert hydragen(*given, code=3) == ("", f"{gap}; --partial writes the rest\n")
    assert not (home / "all.jsonl").exists()
    assert hydragen(*given, "--partial") == ("", f"{gap}\n")
    ran = start(home, *RUN, "-o", "all.jsonl", "--resume")
    assert ran.communicate(timeout=120) == ("", "")
    assert_same((home / "all.jsonl").read_text(), whole)
    _, said = hydragen("merge", "all.jsonl", *SHARDS, "-o", "again.jsonl")
    assert said == "75 identical doubles left out\n75 samples of 3 problems: complete\n"

    longer = [*RUN[:2], "27", *RUN[3:], "-o", "all.jsonl", "--resume"]
    assert start(home, *longer).communicate(timeout=120) == ("", "")
    lines = samples_of((home / "all.jsonl").read_text())
    assert [line["sample_index"] for line in lines] == [*range(27)] * 3


def test_a_shard_that_was_killed_is_resumed(home: Path, folder: Path) -> None:
    """A range of samples in two shards; the first killed and torn, then resumed."""
    parts = [["--first", "5", "--last", "20", "--shard", f"{i}/2", "-o", f"p{i}"] for i in (1, 2)]
    slow = [*parts[0], "--max-rows", "2"]
    with start(home, *RUN, *slow) as process:
        wait_for_lines(home / "p1", 4, process)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    with (home / "p1").open("a") as file:
        file.write('{"task_id": "next", "sample_index": 7')
    _, said = hydragen("merge", "p1", "-o", "all.jsonl", code=3)
    assert "p1: its last line is torn, and left out\n" in said
    for part in parts:
        assert start(home, *RUN, *part, "--resume").communicate(timeout=120) == ("", "")
    ran = start(home, *RUN, "--last", "20", *parts[1][4:], "--resume")
    _, said = ran.communicate(timeout=60)
    assert ran.returncode == 2
    assert "the shard was 2/2 of samples 5 to 20, is 2/2 of samples 0 to 20" in said

    out, said = hydragen("merge", "p1", "p2", "--partial")
    assert "27 of 75 samples of 3 problems missing: 'next' 0 to 4, 'next' 21 to 24, " in said
    expected = [
        line
        for line in (folder / "whole.jsonl").read_text().splitlines()
        if 5 <= json.loads(line)["sample_index"] <= 20
    ]
    assert_same(out, "\n".join(expected))


def test_shards_are_judged_as_one_file(home: Path) -> None:
    results = []
    for files in (["whole.jsonl"], SHARDS, [*SHARDS, "whole.jsonl"]):
        given = [*files, "--summary", "s.json", "-o", "v.jsonl", "--force", "--no-cache", "-q"]
        assert run_command("run_eval", *given).returncode == 0
        result = json.loads((home / "s.json").read_text())
        by_id = {problem["task_id"]: problem for problem in result["problems"]}
        results.append((by_id, result["verdicts"], result["judged"]))
    assert results[0] == results[1] == results[2]
    assert results[0][2] == N_SAMPLES
    assert result["doubled"] == N_SAMPLES


def test_several_files_with_faults_and_problems(home: Path) -> None:
    """A broken line is named by its file; other arguments are problems as ever."""
    (home / "a.jsonl").write_bytes((home / "shard-1.jsonl").read_bytes() + b'{"task_id": "ne')
    os.link(home / "shard-1.jsonl.manifest.json", home / "a.jsonl.manifest.json")
    given = ["a.jsonl", "problems/", "shard-2.jsonl", "-o", "v.jsonl"]
    ran = run_command("run_eval", *given)
    assert ran.returncode == 3, ran.stderr
    assert "a.jsonl:26: not JSON (cut off in the middle)" in ran.stderr
    assert "50 samples judged" in ran.stderr


@pytest.mark.parametrize(
    ("entry", "args", "message"),
    [
        ("merge", "shard-1.jsonl shard-2.jsonl -o shard-1.jsonl --force", "is a file of the samp"),
        ("merge", "shard-1.jsonl -o shard-1.jsonl.manifest.json --force", "is the manifest of the"),
        ("merge", "whole.jsonl -o problems", "problems: is a directory"),
        ("merge", "whole.jsonl -o problems/next.yaml --force", "is YAML or TOML"),
        ("merge", "whole.jsonl -o nowhere/a.jsonl", "no directory nowhere"),
        ("merge", "shard-1.jsonl shard-1.jsonl", "is the same file as shard-1.jsonl"),
        ("merge", "shard-1.jsonl .", ".: is not a file"),
        ("merge", "-", "-: is not a file"),
        ("merge", "none.jsonl", "none.jsonl: cannot be read"),
        ("merge", "whole.jsonl other.jsonl", "settings.seed is 3 in whole.jsonl, 4 in other.jsonl"),
        ("eval", "whole.jsonl other.jsonl", "settings.seed is 3 in whole.jsonl, 4 in other.jsonl"),
        ("eval", "whole.jsonl shard-1.jsonl -o shard-1.jsonl", "is the file of the samples"),
        ("eval", "- shard-1.jsonl", "-: is not a file"),
        ("eval", "alone.jsonl shard-1.jsonl", "alone.jsonl: no manifest alone.jsonl.manifest.json"),
        ("sample", "problems --shard 0/4", "--shard 0/4: expected I/K"),
        ("sample", "problems --shard 5/4", "--shard 5/4: expected I/K"),
        ("sample", "problems --shard a/b", "--shard a/b: expected I/K"),
        ("sample", "problems --shard 1/0", "--shard 1/0: expected I/K"),
        ("sample", "problems -n 2 --shard 1/7", "--shard 1/7: expected at most 6 shards"),
        ("sample", "problems -n 2 --first 2", "--first 2: expected at most 1"),
        ("sample", "problems -n 2 --last 2", "--last 2: expected at most 1"),
        ("sample", "problems --first 3 --last 2", "--last 2: expected at least 3"),
    ],
)
def test_bad_input(home: Path, entry: str, args: str, message: str) -> None:
    (home / "other.jsonl").write_text("")
    record = json.loads((home / "whole.jsonl.manifest.json").read_text())
    record["settings"]["seed"] = 4
    (home / "other.jsonl.manifest.json").write_text(json.dumps(record))
    (home / "alone.jsonl").write_text((home / "shard-2.jsonl").read_text())
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    with pytest.raises(InputError) as caught:
        load(entry).main(args.split(), standalone_mode=False)
    assert message in caught.value.worded(flag_of)
    assert {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()} == before


def test_a_dry_run_shows_the_shard(home: Path) -> None:
    out, said = hydragen("sample", "problems", "-n", "9", "--shard", "3/3", "--dry-run")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["task_id"] for line in lines] == ["twice"] * 3
    assert "9 rows" in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_fails_leaves_nothing(home: Path) -> None:
    """A full disk; a reader that goes away; a disk too small for the file."""
    _, said = hydragen("merge", *SHARDS, "-o", "/dev/full", code=1)
    assert "/dev/full: cannot be written: No space left on device" in said
    piped = ["bash", "-c", 'set -o pipefail; "$@" | head -1 >/dev/null', "-"]
    given = [*piped, *command("run", "merge", *SHARDS, "-q")]
    head = subprocess.run(given, capture_output=True, text=True)
    assert (head.returncode, head.stderr) == (0, "")
    small = ["bash", "-c", 'ulimit -f 4; trap "" XFSZ; "$@"', "-", *command("run", "merge")]
    (home / "all.jsonl").write_text("before")
    ran = subprocess.run(
        [*small, *SHARDS, "-o", "all.jsonl", "--force"], capture_output=True, text=True
    )
    assert ran.returncode == 1
    assert "all.jsonl: cannot be written: File too large" in ran.stderr
    assert (home / "all.jsonl").read_text() == "before"
    assert sorted(path.name for path in home.glob("*all*")) == ["all.jsonl"]
