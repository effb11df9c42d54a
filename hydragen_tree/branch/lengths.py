"""How long samples become: a guess from those that have ended so far.

Short samples end first, so the mean of those that have ended says too little of the others. What
is estimated instead is the share of samples that go on for t tokens and more (Kaplan and Meier,
1958): at each t those that end there, of all that have come so far, unfinished ones included. Its
shape is that of the whole set; a problem's own samples stretch it by how many tokens they draw for
each that ends. Until some have ended, lengths are thought to be even between half of the most and
the most.
"""

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32

_PRIOR_SAMPLES = 4  # as many are added to those that are known, of a problem and of the set
_MOST_STRETCH = 4.0
_LEAST_CHANCE = 1e-9  # of a sample that is alive


class LengthForecast:
    """Follows what samples have drawn.

    Args:
        leaves: of the trie, one for each prompt.
        max_tokens: of a sample.

    Attributes:
        n_compared: samples whose length was predicted, and is known.
        error_tokens: by how much predictions were off, summed over them.
    """

    def __init__(self, leaves: int, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._ends = np.zeros(max_tokens + 1)  # samples that have ended, by length
        self._ended, self._tokens = np.zeros(leaves), np.zeros(leaves)  # of each leaf
        self._predicted: dict[int, float] = {}  # by number of sample
        self.n_compared, self.error_tokens = 0, 0.0

    def grow(self, leaves: int) -> None:
        """Makes room for prompts that have come."""
        more = np.zeros(leaves - self._ended.size)
        self._ended, self._tokens = np.append(self._ended, more), np.append(self._tokens, more)

    def predict(self, samples: NDArray[np.int64], tokens: float) -> None:
        """Notes a prediction, to be compared; the first one of a sample counts."""
        for sample in samples.tolist():
            self._predicted.setdefault(sample, tokens)

    def ended(self, leaf: int, samples: NDArray[np.int64], length: int) -> None:
        """Takes note of samples that have ended."""
        self._ends[length] += samples.size
        self._ended[leaf] += samples.size
        self._tokens[leaf] += samples.size * length
        predicted = [self._predicted.pop(sample, None) for sample in samples.tolist()]
        errors = [abs(tokens - length) for tokens in predicted if tokens is not None]
        self.n_compared += len(errors)
        self.error_tokens += sum(errors)

    @property
    def has_seen_ends(self) -> bool:
        """Whether predictions rest on anything."""
        return bool(self._ended.any())

    def curves(self, leaf: Int32, drawn: Int32) -> "LengthCurves":
        """What can be said now.

        Args:
            leaf: `[samples]` of those that are being drawn.
            drawn: `[samples]` tokens of each.
        """
        size = self._max_tokens + 1
        ends = self._ends.copy()
        later = np.arange(size) > self._max_tokens / 2
        ends += _PRIOR_SAMPLES * later / later.sum()
        known = ends + np.bincount(drawn, minlength=size)
        at_risk = known[::-1].cumsum()[::-1]
        going_on = np.cumprod(1.0 - np.divide(ends, at_risk, where=at_risk > 0, out=ends * 0))
        going_on[-1] = 0.0

        leaves = self._ended.size
        tokens = self._tokens + np.bincount(leaf, drawn, leaves)
        mean = max(float(going_on.sum()), 1.0)
        usual = (tokens.sum() + _PRIOR_SAMPLES * mean) / (self._ended.sum() + _PRIOR_SAMPLES)
        own = (tokens + _PRIOR_SAMPLES * usual) / (self._ended + _PRIOR_SAMPLES)
        stretch = np.clip(own / usual, 1 / _MOST_STRETCH, _MOST_STRETCH)
        return LengthCurves(going_on, stretch)


class LengthCurves:
    """What is thought of lengths at one time.

    Args:
        going_on: `[max_tokens + 1]` the share of samples that draw more than so many tokens.
        stretch: `[leaves]` by which a problem's samples are longer than others.
    """

    def __init__(self, going_on: NDArray[np.float64], stretch: NDArray[np.float64]) -> None:
        self._going_on, self._stretch = going_on, stretch

    def alive(self, leaf: Int32, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """The chance that samples of leaves draw more than so many tokens each."""
        most = self._going_on.size - 1
        at = np.minimum(tokens / self._stretch[leaf], most - 1)  # stretched, not cut off early
        low = at.astype(np.int64)
        part = at - low
        there = (1 - part) * self._going_on[low] + part * self._going_on[low + 1]
        return np.where(tokens < most, np.maximum(there, _LEAST_CHANCE), 0.0)

    def length(self, leaf: int) -> float:
        """Tokens that a sample of a leaf is expected to have."""
        tokens = np.arange(self._going_on.size - 1)
        return float(self.alive(np.full(tokens.size, leaf, np.int32), tokens).sum())
