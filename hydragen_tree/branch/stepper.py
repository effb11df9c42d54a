"""What the loop knows of a batch and of how it is stepped: on the host, or ahead of it on a device.

A stepper holds the branches that are being extended. Waiting ones are admitted into it; every call
of `step` says which tokens samples have drawn since, which samples have ended, and which branches
had to be put back because memory ran out. How many steps a call takes is the stepper's business.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hydragen_kernels.arrays import Int32
from hydragen_kernels.drawn import Drawn


@dataclass(frozen=True, eq=False, slots=True)
class Waiting:
    """A branch outside the batch: tokens and samples, no keys and values.

    Attributes:
        leaf: the leaf of the trie it continues.
        drawn: tokens drawn so far, int32.
        samples: numbers of the samples it carries.
    """

    leaf: int
    drawn: Int32
    samples: NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Admitted:
    """A branch on its way into a batch, with all it needs there.

    Attributes:
        branch: its tokens and samples.
        segment: the segment it hangs from.
        start: tokens of its prompt: the position of the first token drawn.
        pages: `[pages]` int32, taken for its tail.
        tail: tokens of its tail that are in the cache.
        state: place taken for its running state; -1 of a model that keeps none.
        logits: `[vocabulary]` after its prompt, if it has drawn nothing.
    """

    branch: Waiting
    segment: int
    start: int
    pages: Int32
    tail: int
    state: int
    logits: Tensor | None


@dataclass(frozen=True, eq=False, slots=True)
class Ended:
    """Samples that have ended with the same tokens.

    Attributes:
        leaf: the leaf of the trie that they continue.
        samples: their numbers.
        tokens: all that was drawn, int32.
    """

    leaf: int
    samples: NDArray[np.int64]
    tokens: Int32


@dataclass(frozen=True, eq=False, slots=True)
class Progress:
    """What has happened since the last call of `step`.

    Attributes:
        samples: `[samples]` numbers of the samples that were in the batch.
        drawn: `[tokens, samples]` each, in order; the token -1 where a sample has drawn nothing. A
            step is one of these, or several where rows have taken drafts along.
        steps: those in which anything was drawn.
        rows: rows whose logits were computed, summed over the steps; a draft that was drawn is one.
        ended: samples that are done.
        parked: branches that had to leave, depth-first.
        drafts: tokens that were proposed, and those of them that were drawn.
    """

    samples: NDArray[np.int64]
    drawn: Drawn[NDArray[Any]]
    steps: int
    rows: int
    ended: list[Ended] = field(default_factory=list)
    parked: list[Waiting] = field(default_factory=list)
    drafts: tuple[int, int] = (0, 0)


def parked(branches: list[Waiting]) -> Progress:
    """Nothing is drawn: these have to leave first."""
    nothing = np.empty((0, 0))
    return Progress(
        np.empty(0, np.int64), Drawn(nothing.astype(np.int32), nothing, nothing), 0, 0, [], branches
    )


class Ends(Protocol):
    """Decides when samples end: a state and the next token are enough to know."""

    @property
    def keys(self) -> NDArray[np.uint64]:
        """`[samples]` of each the stream of its random numbers; as they come."""
        ...

    def state(self, sample: int, tokens: Int32) -> int:
        """The state of a sample that has drawn these tokens and has not ended."""
        ...

    def advance(self, states: NDArray[np.int64], tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """The states `[rows]` after one more token each; negative: `has_ended` says whether."""
        ...

    def has_ended(self, sample: int, tokens: Int32) -> bool:
        """Whether a sample ends with these tokens, whose state has become negative."""
        ...


class Stepper(Protocol):
    """Draws the next tokens of every sample of a batch.

    Attributes:
        is_ahead: a device takes the steps, ahead of the host.
    """

    is_ahead: bool

    @property
    def max_tokens(self) -> int:
        """Tokens that a sample draws at the most."""
        ...

    @property
    def n_rows(self) -> int:
        """Rows in the batch, as far as is known."""
        ...

    @property
    def n_samples(self) -> int:
        """Samples in the batch."""
        ...

    @property
    def max_samples(self) -> int:
        """Samples that it can hold; where rows cannot part, branches."""
        ...

    @property
    def segments(self) -> Int32:
        """Segments that rows hang from, repeats allowed."""
        ...

    @property
    def spare_pages(self) -> int:
        """Free pages beyond those that the rows need for their next token."""
        ...

    def live(self) -> tuple[Int32, Int32]:
        """What may need pages of its own: samples, or rows where they cannot part.

        Returns:
            The leaf that each continues, and the tokens it has drawn, as far as is known.
        """
        ...

    @property
    def lacks_pages(self) -> bool:
        """Whether `step` will put branches back, unless pages are given up for their rows."""
        ...

    def admit(self, new: list[Admitted]) -> None:
        """Takes branches in."""
        ...

    def launch(self) -> None:
        """Starts all that can be started of what `step` will wait for."""
        ...

    def step(self) -> Progress:
        """The next tokens of the samples of a batch that is not empty; none where some must leave.

        Raises:
            ModelError: the model's logits are broken.
        """
        ...
