"""Daily use: versions, help, escapes, misspelled variables, one stop or several."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from hydragen_cli import main
from hydragen_cli.options import unescape
from hydragen_tree.errors import InputError
from hydragen_tree.settings import SamplingSettings
from tests.forked import run_command


def run(entry: str, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    code = f"from hydragen_cli.main import {entry}; {entry}()"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HYDRAGEN_")}
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("entry", ["run", "run_sample", "run_eval"])
def test_every_program_knows_its_version(entry: str) -> None:
    ran = run(entry, "--version")
    assert (ran.returncode, ran.stdout) == (0, f"hydragen-tree {version('hydragen-tree')}\n")


def test_the_package_runs_as_a_module() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "hydragen_cli", "--version"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"hydragen-tree {version('hydragen-tree')}\n")


def test_a_process_that_a_command_spawns_is_not_the_command_again() -> None:
    import_module("hydragen_cli.__main__")  # as multiprocessing does there, by another name


def test_a_checkout_that_is_not_installed_has_no_version(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", unknown)
    monkeypatch.setattr("sys.argv", ["hydragen", "--version"])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("hydragen-tree of unknown version, from ")


def test_without_arguments_the_commands_are_shown() -> None:
    ran = run("run")
    assert ran.returncode == 0
    assert ran.stdout == run("run", "--help").stdout
    assert "sample" in ran.stdout


def test_problems_without_tests_are_said(own_home: Path) -> None:
    for name, tests in [("a", ""), ("b", "tests: []"), ("c", 'tests: [{input: "", output: ""}]')]:
        (own_home / f"{name}.yaml").write_text(f"statement: Print 1.\n{tests}\n")
    given = ("a.yaml", "b.yaml", "c.yaml", "-n", "1", "--max-tokens", "1", "-o", "/dev/null")
    said = "a.yaml, b.yaml: no tests; the samples cannot be judged"
    assert said in run_command("run_sample", *given).stderr.splitlines()
    assert run_command("run_sample", *given, "-q").stderr == ""


@pytest.mark.parametrize("command", ["sample", "plan", "schema"])
def test_a_misspelled_variable_is_named(command: str) -> None:
    ran = run("run", command, HYDRAGEN_MAX_TOKEN="5")
    assert ran.returncode == 2
    said = "HYDRAGEN_MAX_TOKEN: no such option; did you mean HYDRAGEN_MAX_TOKENS?"
    assert ran.stderr == f"hydragen: {said}\n"


def test_variables_of_other_commands_are_none_of_this_ones_business() -> None:
    ran = run("run", "schema", HYDRAGEN_MAX_TOKENS="5", HYDRAGEN_DEBUG="0", HYDRAGEN_WORKERS="2")
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(r"\n", "\n"), (r"\n\n", "\n\n"), (r"\\n", r"\n"), (r"a\d", r"a\d"), ("\n", "\n")],
)
def test_escapes(typed: str, meant: str) -> None:
    assert unescape(typed) == meant


def test_one_stop_and_several() -> None:
    assert SamplingSettings(stop="xyz").stop == ("xyz",)
    assert SamplingSettings(stop=["\n", "b"]).stop == ("\n", "b")
    assert hash(SamplingSettings(stop=["\n"])) == hash(SamplingSettings(stop=("\n",)))
    for wrong, said in (("", "''"), (["a", ""], "''"), ([1], "1")):
        with pytest.raises(InputError, match=rf"^stop {said}: expected text that is not empty$"):
            SamplingSettings(stop=wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^stop_tokens '': expected text that is not empty, or"):
        SamplingSettings(stop_tokens=[3, ""])


def test_messages_without_room_do_not_end_the_work(own_home: Path) -> None:
    (own_home / "p.yaml").write_text("statement: Print 1.\n")
    code = "from hydragen_cli.process import run_sample; run_sample()"
    command = [sys.executable, "-c", code, "p.yaml", "-n", "3", "--max-tokens", "4"]
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False)
        assert (ran.returncode, ran.stdout.count(b"\n")) == (0, 3)
        ran = subprocess.run([*command, "--top-p", "0"], stderr=full, check=False)
        assert ran.returncode == 2


def test_messages_without_a_reader_do_not_end_the_work(own_home: Path) -> None:
    """As of `hydragen-sample ... -o out.jsonl 2>&1 | head -1`."""
    (own_home / "p.yaml").write_text("statement: Print 1.\n")
    code = "from hydragen_cli.process import run_sample; run_sample()"
    command = [sys.executable, "-c", code, "p.yaml", "-n", "3", "--max-tokens", "4"]
    for more, expected in (([], 0), (["--top-p", "0"], 2)):
        reading, writing = os.pipe()
        os.close(reading)
        ran = subprocess.run([*command, "-o", "out.jsonl", *more], stderr=writing, check=False)
        os.close(writing)
        assert ran.returncode == expected
    assert Path("out.jsonl").read_bytes().count(b"\n") == 3


ENDS = """
import atexit, sys
from hydragen_cli import main, process, program

def start(name):
    atexit.register(print, "tidied up")
    sys.exit(3)

program.start = start
"""


def python(code: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", ENDS + code], capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout


def test_a_command_ends_its_process_after_all_exit_handlers() -> None:
    """Without what comes after them: there an object would say so."""
    late = "class Late:\n    def __del__(self):\n        print('taken apart')\nlate = Late()\n"
    assert python(late + "process.run()") == (3, "tidied up\n")


def test_a_command_leaves_a_process_alone_that_calls_it_from_elsewhere() -> None:
    elsewhere = "exec('main.run()', {'main': main, '__name__': 'elsewhere'})"
    for call in (elsewhere, "main.run()"):
        caught = f"try:\n    {call}\nexcept SystemExit:\n    print('going on')\n"
        assert python(caught) == (0, "going on\ntidied up\n")
        assert python(caught + "sys.exit(7)") == (7, "going on\ntidied up\n")
