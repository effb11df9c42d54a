"""What a run reads, checked before any model is touched."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydragen_tree.errors import InputError

if TYPE_CHECKING:
    from hydragen_tree.problem import Problem

    from hydragen_tree.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Inputs:
    """Problems or plain prompts, not tokenised yet; one of the two is empty."""

    problems: "Sequence[Problem]"
    lines: Sequence[tuple[str, Any]]

    @classmethod
    def read(cls, problems: Sequence[str] | None, prompts: str | None) -> "Inputs":
        """Reads the problems named, or the lines of a prompts file.

        Raises:
            InputError: neither or both are given, or something in them is wrong.
        """
        from hydragen_tree.problem import load_problems

        from hydragen_tree.prompts import read_prompt_lines

        if problems and prompts:
            raise InputError("--prompts: give either problems or --prompts, not both")
        if problems:
            return cls(load_problems(problems), ())
        if prompts is None:
            raise InputError("no problems: name PROBLEM files, or give prompts with --prompts FILE")
        if prompts == "-":
            return cls((), read_prompt_lines(sys.stdin))
        try:
            with Path(prompts).open(encoding="utf-8") as file:
                return cls((), read_prompt_lines(file))
        except OSError as error:
            raise InputError(f"{prompts}: cannot be read: {error.strerror} (--prompts)") from error

    @property
    def files(self) -> dict[str, tuple[str, str]]:
        """Task id to (path, content hash), for the manifest."""
        return {p.id: (str(p.source), p.content_hash) for p in self.problems}

    def prompts(
        self, tokenizer: Any, *, seed: int, chat: bool, variants: int | None
    ) -> "list[Prompt]":
        """Tokenises everything."""
        from hydragen_tree.prompts import build_prompts, prompts_from_sources

        if self.problems:
            return build_prompts(self.problems, tokenizer, seed=seed, chat=chat, variants=variants)
        return prompts_from_sources(self.lines, tokenizer, chat=chat)
