"""What a run reads, checked before any model is touched."""

import os
import stat
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydragen_cli.options import parse_chat_options
from hydragen_cli.outputs import files_of
from hydragen_tree.errors import InputError, first_of

if TYPE_CHECKING:
    from hydragen_tree.problem.types import Problem
    from hydragen_tree.prompt.prompt_lines import PromptLines
    from hydragen_tree.prompt.prompt_stream import PromptStream
    from hydragen_tree.prompt.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Inputs:
    """Problems or plain prompts, not tokenised yet; one of the two is empty.

    Args:
        asked: how requests among the prompts are to be sampled, as `PromptLines` has it.
        stream: where further prompts come from, while the run goes on.
    """

    problems: "Sequence[Problem]"
    lines: Sequence[tuple[str, Any]]
    chat: bool
    variants: int | None
    chat_options: Mapping[str, Any] = field(default_factory=dict)
    prompts_file: str | None = None
    asked: Mapping[str, Mapping[Hashable, int]] = field(default_factory=dict)
    stream: "PromptStream | None" = None

    @classmethod
    def read(
        cls,
        problems: Sequence[str] | None,
        prompts: str | None,
        chat: bool,
        chat_option: Sequence[str] | None,
        variants: int | None,
        *,
        streams: bool = False,
    ) -> "Inputs":
        """Reads the problems named, or the lines of a prompts file.

        Args:
            problems, prompts, chat, chat_option, variants: as the options have them.
            streams: prompts from a pipe need not all be there yet.

        Raises:
            InputError: neither or both are given, something in them is wrong, or an option has no
                meaning for them.
        """
        from hydragen_tree.problem.reading import load_problems

        if problems and prompts:
            raise InputError("give either problems or --prompts, not both", setting="prompts")
        options = parse_chat_options(chat_option)
        if problems:
            return cls(load_problems(problems), (), chat, variants, options)
        if prompts is None:
            raise InputError("no problems: name PROBLEM files, or give prompts with --prompts FILE")
        if chat:
            raise InputError(
                "renders problems; give --prompts as chat messages instead", setting="chat"
            )
        if variants is not None:
            raise InputError("problems have variants, --prompts have none", setting="variants")
        stream = _open_stream() if streams and prompts == "-" else None
        if stream is not None:
            if (whole := stream.begin()) is None:
                first, asked = stream.take() or [], stream.asked
                return cls((), first, chat, variants, options, prompts, asked, stream)
            return cls((), whole.prompts, chat, variants, options, prompts, whole.asked)
        read = _read_lines(prompts)
        return cls((), read.prompts, chat, variants, options, prompts, read.asked)

    @property
    def files(self) -> dict[str, tuple[str | None, str]]:
        """Task id to (path, content hash), for the manifest; problems from stdin have no path."""
        from hydragen_tree.problem.reading import STDIN

        return {
            problem.id: (None if problem.source == STDIN else problem.source, problem.content_hash)
            for problem in self.problems
        }

    def paths(self) -> Iterator[tuple[str, Path]]:
        """The files that were read, and what each is."""
        if self.prompts_file not in (None, "-"):
            yield "the file of the prompts", Path(str(self.prompts_file))
        yield from files_of(self.problems)

    def remarks(self) -> Iterator[str]:
        """What is allowed, and rarely meant."""
        untested = [problem.source for problem in self.problems if not problem.tests]
        if untested:
            yield f"{first_of(untested)}: no tests; the samples cannot be judged"

    def next(self, wait: bool) -> "Inputs | None":
        """The prompts that have come meanwhile, if any have. None: there are no more.

        Args:
            wait: for one.

        Raises:
            InputError: a line is bad, and all before it have been given.
        """
        if self.stream is None or (lines := self.stream.take(wait)) is None:
            return None
        return replace(self, lines=lines, asked=self.stream.asked)

    def prompts(self, tokenizer: Any, seed: int) -> "list[Prompt]":
        """Tokenises everything; the seed chooses few-shot examples."""
        from hydragen_tree.prompt.prompts import build_prompts, prompts_from_sources

        if self.lines:
            return prompts_from_sources(self.lines, tokenizer, chat_options=self.chat_options)
        return build_prompts(
            self.problems,
            tokenizer,
            seed=seed,
            chat=self.chat,
            chat_options=self.chat_options,
            variants=self.variants,
        )


def _open_stream() -> "PromptStream | None":
    """Stdin, if it is something that others may still write to."""
    from hydragen_tree.prompt.prompt_stream import PromptStream

    try:
        descriptor = sys.stdin.fileno()
    except (OSError, ValueError):  # closed, or no file
        return None
    is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
    return None if is_file else PromptStream(descriptor)


def _read_lines(prompts: str) -> "PromptLines":
    from hydragen_tree.prompt.prompt_lines import read_prompt_lines

    try:
        if prompts == "-":
            return read_prompt_lines(sys.stdin)
        with Path(prompts).open(encoding="utf-8-sig") as file:
            return read_prompt_lines(file, prompts)
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text", setting="prompts", value=prompts) from error
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", setting="prompts", value=prompts
        ) from error
