"""An order that things can join anywhere: each has a number, greater than those before it.

What comes between two others gets a number between theirs, near the first, since more is likely to
follow it. Where no number is left, all are spread anew.

Source: Dietz and Sleator 1987, Two Algorithms for Maintaining Order in a List, in a simpler form.
"""

_MOST = 1 << 62
_PART = 1024  # of the room between two, what is left before one that comes between


class Places:
    """Things by their numbers, in an order; none has the number of the END."""

    END = -1  # what stands behind everything

    def __init__(self) -> None:
        self._of = {self.END: _MOST}
        self._next: dict[int, int] = {}
        self._before = {self.END: self.END}

    def __getitem__(self, thing: int) -> int:
        """The place of a thing."""
        return self._of[thing]

    def put(self, thing: int, behind: int = END) -> bool:
        """Puts a thing before another, the one *behind* it; by default at the end of all.

        Returns:
            Whether others have got new places for it.
        """
        before = self._before[behind]
        self._before[thing], self._next[thing] = before, behind
        self._before[behind] = thing
        if before != self.END:
            self._next[before] = thing
        low, high = 0 if before == self.END else self._of[before], self._of[behind]
        self._of[thing] = low + max(1, (high - low) // _PART)
        if self._of[thing] < high:
            return False
        self._spread()
        return True

    def behind(self, thing: int) -> int:
        """The thing after one; what stands for the end, after the last."""
        return self._next[thing]

    def remove(self, thing: int) -> None:
        """Takes a thing out."""
        before, behind = self._before.pop(thing), self._next.pop(thing)
        self._before[behind] = before
        if before != self.END:
            self._next[before] = behind
        del self._of[thing]

    def _spread(self) -> None:
        """Gives all the same room, and the end the most."""
        things, thing = [], self._before[self.END]
        while thing != self.END:
            things.append(thing)
            thing = self._before[thing]
        room = _MOST // (2 * len(things))
        for number, thing in enumerate(reversed(things), 1):
            self._of[thing] = number * room
