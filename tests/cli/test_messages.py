"""Messages: the library speaks of settings, the command line of its flags."""

import pickle
import re
from pathlib import Path

import pytest

import hydragen_tree
from hydragen_cli.options import flag_of
from hydragen_tree.errors import CapacityError, InputError, Setting
from hydragen_tree.sample.writer import SampleWriter
from hydragen_tree.settings import SamplingSettings


@pytest.mark.parametrize(
    ("setting", "value", "flag"),
    [
        ("max_tokens", 0, "--max-tokens"),
        ("top_p", 2.0, "--top-p"),
        ("temperature", -1.0, "--temperature"),
        ("seed", -1, "--seed"),
    ],
)
def test_a_setting_has_its_own_name_in_python_and_a_flag_on_the_command_line(
    setting: str, value: float, flag: str
) -> None:
    with pytest.raises(InputError) as caught:
        SamplingSettings(**{setting: value})  # type: ignore[arg-type]
    assert caught.value.setting == setting
    assert str(caught.value).startswith(f"{setting} {value}: expected ")
    assert caught.value.worded(flag_of) == str(caught.value).replace(setting, flag)


def test_settings_in_the_middle_of_a_message_are_translated_too(tmp_path: Path) -> None:
    path = tmp_path / "--force.jsonl"  # a name that is no setting
    path.write_text("{}\n")
    with pytest.raises(InputError) as caught:
        SampleWriter(path)
    assert caught.value.setting is None
    assert str(caught.value) == f"{path}: exists; resume continues it, force starts it anew (path)"
    told = f"{path}: exists; --resume continues it, --force starts it anew (--output)"
    assert caught.value.worded(flag_of) == told


def test_an_error_survives_a_process_boundary() -> None:
    error = CapacityError("no room; lower ", Setting("max_tokens"))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.worded(flag_of)) == (
        "no room; lower max_tokens",
        "no room; lower --max-tokens",
    )


def test_the_flags_of_settings_whose_names_differ() -> None:
    names = ["n", "k", "memory_bytes", "path", "kv_dtype"]
    assert [flag_of(name) for name in names] == ["-n", "-k", "--memory", "--output", "--kv-dtype"]


def test_no_flag_stands_in_a_message_of_the_library() -> None:
    """Flags of other programs, in lists of arguments, are whole strings or tables of them."""
    message = re.compile(r"(?:Error|note)\(\s*(?:\w+,\s*)?f?[\"'][^\"'\n]*--[a-z]")
    root = Path(hydragen_tree.__file__).parent
    found = [
        f"{file}: {m[0]}" for file in root.rglob("*.py") for m in message.finditer(file.read_text())
    ]
    assert not found
