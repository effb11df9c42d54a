"""When samples end and with which text: end tokens, stop tokens, stop strings."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32
from hydragen_tree.sample.sample import FinishReason
from hydragen_tree.sample.stops import BY_TOKEN, StopTable, encoded
from hydragen_tree.sample.text import Detokenizer


class Endings:
    """Decides when a sample ends; a state and the next token are enough to know.

    With a tokenizer that has no table of bytes, every token may end a sample that has stop strings,
    and its text is searched. So it is where U+FFFD is sought, which stands for bytes of many kinds.

    Args:
        detokenizer: the tokenizer's.
        stop_sets: the stop strings of each kind of prompt.
        eos_ids: tokens that end a text by the model's own configuration.
        stop_tokens: tokens that end a sample besides.

    Attributes:
        table: what each token does to each state; None where texts are searched.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stop_sets: Sequence[Sequence[str]],
        eos_ids: Collection[int],
        stop_tokens: Collection[int],
    ) -> None:
        self._detokenizer = detokenizer
        searched = any("\ufffd" in stop for stops in stop_sets for stop in stops)
        self._bytes = None if searched else detokenizer.table
        self._stops = [list(map(encoded, stops)) for stops in stop_sets]
        self._texts = [tuple(stops) for stops in stop_sets]
        self._eos_ids = frozenset(eos_ids)
        self._stop_tokens = [
            frozenset([*stop_tokens, *detokenizer.named_specials(stops)]) for stops in stop_sets
        ]
        drawn = range(detokenizer.vocabulary_size)  # configurations name ids beyond it, and -1
        ending = [(self._eos_ids | ids).intersection(drawn) for ids in self._stop_tokens]
        self.table: StopTable | None = None
        if self._bytes is None:
            self._may_end = np.full(detokenizer.vocabulary_size, any(self._stops))
            self._may_end[sorted(frozenset().union(*ending))] = True
        else:
            self.table = StopTable(self._bytes, stop_sets, ending)

    def start(self, stop_set: int, prompt: Int32) -> int:
        """The state of a sample that has drawn nothing.

        Args:
            stop_set: number of its stop strings.
            prompt: `[tokens]` all of its prompt.
        """
        if self._bytes is None or self.table is None:
            return 0
        return self.table.start(stop_set, self._bytes.is_open(prompt))

    def state(self, stop_set: int, prompt: Int32, tokens: Int32) -> int:
        """The state of a sample that has drawn these tokens and has not ended."""
        state = np.array([self.start(stop_set, prompt)])
        for token in tokens.tolist():
            state = self.advance(state, np.array([token]))
        return int(state[0])

    def advance(self, states: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The states after one more token each; negative where `ending` says how a sample ends.

        Args:
            states: int64 `[samples]`.
            tokens: int64 `[samples]`.
        """
        if self.table is None:
            return np.where(self._may_end[tokens], BY_TOKEN, 0)
        return self.table.advance(states, tokens)

    def ending(
        self, stop_set: int, prompt: Int32, tokens: Int32
    ) -> tuple[FinishReason | None, str]:
        """Why a history ends in its last token, if it does, and its text.

        Args:
            stop_set: number of its stop strings.
            prompt: `[tokens]` all of its prompt.
            tokens: all that was drawn.
        """
        last = int(tokens[-1])
        reason: FinishReason | None = None
        if last in self._eos_ids:
            reason = "eos"
        elif last in self._stop_tokens[stop_set]:
            reason = "stop"
        shown = tokens[:-1] if reason else tokens
        if not self._stops[stop_set]:
            return reason, self._detokenizer.text(prompt, shown)
        text, is_cut = self._cut(stop_set, prompt, shown)
        return "stop" if is_cut else reason, text

    def _cut(self, stop_set: int, prompt: Int32, tokens: Int32) -> tuple[str, bool]:
        """The text before the first of the stop strings, or all of it; whether there is one."""
        if self._bytes is None or self.table is None:
            text = self._detokenizer.text(prompt, tokens)
            found = [at for at in map(text.find, self._texts[stop_set]) if at >= 0]
            return text[: min(found)] if found else text, bool(found)
        read = self.table.read[stop_set]
        seen = self._bytes.pieces(tokens, self._bytes.is_open(prompt))
        if read:
            seen = [read.get(t, p) for t, p in zip(tokens.tolist(), seen, strict=True)]
        data = b"".join(seen)
        found = [at for at in map(data.find, self._stops[stop_set]) if at >= 0]
        if read and not found:
            return self._detokenizer.text(prompt, tokens), False
        left, kept = min(found, default=len(data)), b""
        if not read:
            return data[:left].decode("utf-8", "replace"), bool(found)
        for token, piece in zip(tokens.tolist(), seen, strict=True):
            kept += b"" if token in read else piece[:left]
            left = max(0, left - len(piece))
        return kept.decode("utf-8", "replace"), True
