"""How many rows a batch will have: a chunk is launched for them before anybody can know."""

_LEAST_ROWS = 64  # of a graph that may fork: smaller ones take as long
_FAST = 1.25  # growth of rows in a chunk from which on the next one waits to be told of it
_FAST_STEPS = 4  # and is short, since steps that find no room for their rows are wasted


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

    def rows(self, known: int, chunks: int) -> int:
        """Rows to make room for.

        Args:
            known: rows when they were last seen.
            chunks: in which they may have forked since, or will.
        """
        margin = 1.1 + 1.5 * (self._growth - 1.0)
        return max(int(margin**chunks * known), _LEAST_ROWS)

    def steps(self, most: int) -> int:
        """Steps of a chunk, of so many at the most."""
        return most if self.is_steady else min(most, _FAST_STEPS)

    def seen(self, before: int, after: int, stuck: bool) -> None:
        """Takes note of a chunk's rows.

        Args:
            before: rows known of when it was launched.
            after: rows at its end.
            stuck: there was no room for more.
        """
        self.was_stuck = stuck
        self._growth = 2.0 * self._growth if stuck else max(1.0, after / max(before, 1))
