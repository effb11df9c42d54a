"""How long samples become: a guess from those that have ended so far, and those that go on.

Short samples end first, so the mean of those that have ended says too little of the others. What
is estimated instead is the share of samples that go on for t tokens and more (Kaplan and Meier,
1958): at each t those that end there, of all that have come so far, unfinished ones included.

A problem's samples are like each other. So at each t its own count, of ends and of those that came
so far; a few samples that end as those of the whole set do are added to them, and decide where
hardly any of its own has come. A problem none of whose samples has ended where others' do is soon
known to be a long one. Of the set nothing is known at first: its lengths are thought to be even
between half of the most and the most.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hydragen_kernels.arrays import Int32

_PRIOR_SAMPLES = 4  # as many are added to those that are known, of a problem and of the set
_LEAST_CHANCE = 1e-9  # of a sample that is alive


class LengthForecast:
    """Follows what samples have drawn.

    Args:
        max_tokens: of a sample.

    Attributes:
        n_compared: samples whose length was predicted, and is known.
        predicted_tokens: as predicted, summed over them.
        real_tokens: as drawn, summed over them.
        error_tokens: by how much predictions were off, summed over them.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._ends = np.zeros(max_tokens + 1)  # samples that have ended, by length
        self._ends_of: dict[int, NDArray[np.float64]] = {}  # the same of each leaf
        self._predicted: dict[int, float] = {}  # by number of sample
        self.n_compared, self.real_tokens = 0, 0
        self.predicted_tokens = self.error_tokens = 0.0

    def predict(self, samples: NDArray[np.int64], tokens: float) -> None:
        """Notes a prediction, to be compared; the first one of a sample counts."""
        for sample in samples.tolist():
            self._predicted.setdefault(sample, tokens)

    def ended(self, leaf: int, samples: NDArray[np.int64], length: int) -> None:
        """Takes note of samples that have ended."""
        self._ends[length] += samples.size
        self._ends_of.setdefault(leaf, np.zeros(self._max_tokens + 1))[length] += samples.size
        known = self._predicted
        predicted = [known.pop(sample) for sample in samples.tolist() if sample in known]
        self.n_compared += len(predicted)
        self.real_tokens += len(predicted) * length
        self.predicted_tokens += sum(predicted)
        self.error_tokens += sum(abs(tokens - length) for tokens in predicted)

    def forget(self, leaf: int) -> None:
        """No more samples of a leaf will come."""
        self._ends_of.pop(leaf, None)

    @property
    def has_seen_ends(self) -> bool:
        """Whether predictions rest on anything."""
        return bool(self._ends.any())

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
        return LengthCurves(_ratio(ends, _and_later(known)), self._ends_of, leaf, drawn)


class LengthCurves:
    """What is thought of lengths at one time.

    Args:
        chances: `[max_tokens + 1]` of a sample of any problem that it ends with so many tokens, if
            it has come so far.
        ends_of: by leaf, `[max_tokens + 1]` samples that have ended, by length.
        leaf: `[samples]` of those that are being drawn.
        drawn: `[samples]` tokens of each.
    """

    def __init__(
        self,
        chances: NDArray[np.float64],
        ends_of: Mapping[int, NDArray[np.float64]],
        leaf: Int32,
        drawn: Int32,
    ) -> None:
        self._chances, self._ends_of = chances, ends_of
        self._places = np.empty(0, np.int64)  # of leaves in what is known of them, or -1
        self._going_on = np.empty((0, chances.size))
        self._learn(leaf, drawn)

    def alive(self, leaf: Int32, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """The chance that samples of leaves draw more than so many tokens each.

        Args:
            leaf: `[samples]`.
            tokens: `[..., samples]`.
        """
        most, places = self._chances.size - 1, self._places_of(leaf)
        there = self._going_on[places, np.minimum(tokens, most)]
        return np.where(tokens < most, np.maximum(there, _LEAST_CHANCE), 0.0)

    def length(self, leaf: int) -> float:
        """Tokens that a sample of a leaf is expected to have."""
        (place,) = self._places_of(np.array([leaf], np.int32)).tolist()
        return float(self._going_on[place].sum())

    def _places_of(self, leaf: Int32) -> NDArray[np.int64]:
        """Where leaves are in `_going_on`."""
        is_new = self._room_for(leaf)[leaf] < 0
        if is_new.any():
            self._learn(np.unique(leaf[is_new]), np.empty(0, np.int32))
        return self._places[leaf]

    def _room_for(self, leaf: Int32) -> NDArray[np.int64]:
        missing = int(leaf.max(initial=-1)) + 1 - self._places.size
        if missing > 0:
            self._places = np.append(self._places, np.full(missing, -1))
        return self._places

    def _learn(self, leaf: Int32, drawn: Int32) -> None:
        """Works out the share of samples of new leaves that draw more than so many tokens."""
        size = self._chances.size
        leaves, of = np.unique(leaf, return_inverse=True)
        self._room_for(leaf)[leaves] = len(self._going_on) + np.arange(leaves.size)
        nothing = np.zeros(size)
        counts = [self._ends_of.get(number, nothing) for number in leaves.tolist()]
        ends = np.array(counts).reshape(-1, size)
        known = np.bincount(of[: drawn.size] * size + drawn, minlength=ends.size).reshape(-1, size)
        at_risk = _and_later(ends + known)
        chances = (ends + _PRIOR_SAMPLES * self._chances) / (at_risk + _PRIOR_SAMPLES)
        chances[:, -1] = 1.0
        self._going_on = np.concatenate([self._going_on, np.cumprod(1.0 - chances, axis=1)])


def _and_later(counts: NDArray[np.floating]) -> NDArray[np.floating]:
    """The sum from each place on, along the last axis."""
    return counts[..., ::-1].cumsum(-1)[..., ::-1]


def _ratio(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.divide(part, whole, where=whole > 0, out=np.zeros(part.size))
    return shares
