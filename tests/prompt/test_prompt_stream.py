"""Lines of prompts from a pipe that is still written to."""

import os
from collections.abc import Iterator

import pytest

from hydragen_tree.errors import InputError
from hydragen_tree.prompt.prompt_stream import PromptStream


@pytest.fixture
def pipe() -> Iterator[tuple[PromptStream, int]]:
    reader, writer = os.pipe()
    yield PromptStream(reader), writer
    try:
        os.close(writer)
    except OSError:
        return  # the test has


def test_prompts_are_there_when_their_line_is(pipe: tuple[PromptStream, int]) -> None:
    stream, writer = pipe
    os.write(writer, b'\n{"prompt": "a"}\n{"prom')
    assert stream.begin() is None
    assert stream.take() == [("prompt-0", "a")]
    os.write(writer, b'pt": "b", "task_id": "two"}\n{"prompt": "c"}')
    assert stream.take() == [("two", "b")]
    os.close(writer)  # the last line needs no end
    assert stream.take() == [("prompt-2", "c")]
    assert stream.take() is None


def test_a_stream_that_ends_at_once_is_a_file(pipe: tuple[PromptStream, int]) -> None:
    stream, writer = pipe
    os.write(writer, b'{"prompt": "a"}\n{"prompt": [1, 2]}\n')
    os.close(writer)
    whole = stream.begin()
    assert whole is not None
    assert [name for name, _ in whole.prompts] == ["prompt-0", "prompt-1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "again", "task_id": "one"}', "line 3: task_id 'one' comes twice"),
        (b"\xff", "line 3: not UTF-8 text"),
        (b'{"prompt": ""}', "line 3: the prompt is empty"),
    ],
)
def test_a_bad_line_ends_it_behind_those_before(
    pipe: tuple[PromptStream, int], line: bytes, message: str
) -> None:
    stream, writer = pipe
    os.write(writer, b'{"prompt": "a", "task_id": "one"}\n')
    assert stream.begin() is None
    os.write(writer, b'{"prompt": "b"}\n' + line + b'\n{"prompt": "c"}\n')
    assert stream.take() == [("one", "a")]
    assert stream.take() == [("prompt-1", "b")]
    with pytest.raises(InputError, match=message):
        stream.take()


def test_nothing_and_nothing_good(pipe: tuple[PromptStream, int]) -> None:
    stream, writer = pipe
    os.close(writer)
    with pytest.raises(InputError, match="no prompts"):
        stream.begin()
