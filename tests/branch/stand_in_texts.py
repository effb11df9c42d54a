"""What samples should draw, and a check that they do."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from hydragen_kernels.drawn import Drawn
from hydragen_tree.branch.stepper import Ended


class Texts:
    """The tokens that each sample draws, when it ends, and what has been said of it so far."""

    def __init__(
        self,
        samples: int,
        of_text: Callable[[int], int],
        max_tokens: int,
        vocabulary: int,
        together: int,
        p_end: float,
        seed: int,
    ) -> None:
        rng = np.random.default_rng(seed)
        own = rng.integers(0, vocabulary, (samples, max_tokens))
        own[rng.random(own.shape) < together / (together + 1)] = 0
        self.tokens = own[[of_text(sample) for sample in range(samples)]].astype(np.int32)
        self.table = rng.integers(0, 3, (3, vocabulary)).astype(np.int16)
        self.table[rng.random(self.table.shape) < p_end] = -1
        self.keys = (np.arange(samples, dtype=np.uint64) * np.uint64(7)) ^ np.uint64(1 << 63)
        self.lengths = [self.length(row.tolist()) for row in self.tokens]
        self.drawn: list[list[int]] = [[] for _ in range(samples)]
        self.ended: list[int] = []

    def length(self, tokens: list[int]) -> int:
        state = 0
        for place, token in enumerate(tokens):
            state = int(self.table[state, token])
            if state < 0:
                return place + 1
        return len(tokens)

    def sample_of(self, keys: torch.Tensor) -> np.ndarray:
        return ((keys.numpy().view(np.uint64) ^ np.uint64(1 << 63)) // np.uint64(7)).astype(int)

    # as of `Ends`

    def state(self, sample: int, tokens: np.ndarray) -> int:
        state = 0
        for token in tokens.tolist():
            state = int(self.table[state, token])
        assert state >= 0, "a sample that has ended goes on"
        return state

    def advance(self, states: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def has_ended(self, sample: int, tokens: np.ndarray) -> bool:
        raise NotImplementedError

    # as of `SampleRecords`

    def add(self, samples: np.ndarray, drawn: Drawn[np.ndarray]) -> None:
        for column, sample in enumerate(samples.tolist()):
            column_tokens = drawn.tokens[:, column]
            self.drawn[sample] += column_tokens[column_tokens >= 0].tolist()

    def finished(self, all_ended: Sequence[Ended]) -> Iterator[int]:
        for ended in all_ended:
            for sample in ended.samples.tolist():
                right = self.tokens[sample, : self.lengths[sample]].tolist()
                assert ended.tokens.tolist() == right
                assert self.drawn[sample] == right
                self.ended.append(sample)
                yield sample
