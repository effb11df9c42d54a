"""How many rows a batch will have: a chunk is launched for them before anybody can know."""

from dataclasses import dataclass

LEAST_ROWS = 64  # of a graph that may fork: smaller ones take as long
_FAST = 1.25  # growth of rows in a chunk from which on the next one waits to be told of it
_FAST_STEPS = 4  # and is short, since steps that find no room for their rows are wasted
_OPEN_MARGIN = 1.5  # of rows for the samples of a new prompt, beside those that others spread over
_MOST_MORE = 1.5  # of the rows there are: as many are no loss beside a device that waits


@dataclass(frozen=True, slots=True)
class Openings:
    """Prompts whose first tokens are being drawn: nobody has seen yet how their rows fork.

    Attributes:
        rows: of theirs, one a prompt.
        samples: of theirs.
        known_rows: of all others.
        known_samples: of all others.
    """

    rows: int
    samples: int
    known_rows: int
    known_samples: int

    @property
    def most(self) -> int:
        """Rows to make room for: samples are thought to part as others have, or to the last."""
        if not self.known_rows:
            return self.samples
        likely = _OPEN_MARGIN * self.known_rows / self.known_samples * self.samples
        return max(self.rows, min(int(likely), self.samples))

    @property
    def may_ride(self) -> bool:
        """Whether others' rows step on meanwhile, with room for what they may become."""
        return self.known_rows + self.most <= _MOST_MORE * (self.known_rows + self.rows)


class RowForecast:
    """Guesses how rows fork from how they have forked in the last chunk.

    Attributes:
        was_stuck: the last chunk found no room for its rows.
    """

    def __init__(self) -> None:
        self.was_stuck = False
        self._growth = 2.0  # of the number of rows in a chunk

    @property
    def is_steady(self) -> bool:
        """Whether a chunk can be launched before the last one has told of its rows."""
        return self._growth < _FAST

    def rows(self, openings: Openings, chunks: int) -> int:
        """Rows to make room for.

        Args:
            openings: rows when they were last seen, and those that come.
            chunks: in which the former may have forked since, or will.
        """
        margin = 1.1 + 1.5 * (self._growth - 1.0)
        return max(int(margin**chunks * openings.known_rows) + openings.most, LEAST_ROWS)

    def steps(self, most: int) -> int:
        """Steps of a chunk, of so many at the most."""
        return most if self.is_steady else min(most, _FAST_STEPS)

    def seen(self, before: int, after: int, stuck: bool) -> None:
        """Takes note of a chunk's rows.

        Args:
            before: rows known of when it was launched, but for those of openings.
            after: what they are at its end; if there were none, nothing is learnt of growth.
            stuck: there was no room for more.
        """
        self.was_stuck = stuck
        if stuck:
            self._growth *= 2.0
        elif before:
            self._growth = max(1.0, after / before)
