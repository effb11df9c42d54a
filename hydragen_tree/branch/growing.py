"""Arrays that grow: what adding costs depends on what is added, not on what was there before."""

from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


class Growing(Generic[Number]):
    """One array, with room behind it.

    Args:
        values: `[n, ...]` what it begins with.
    """

    def __init__(self, values: NDArray[Number]) -> None:
        self._buffer, self._size = values.copy(), len(values)

    @property
    def values(self) -> NDArray[Number]:
        """`[n, ...]`, a view: it can be written, and is of what was there when it was asked for."""
        return self._buffer[: self._size]

    def append(self, more: NDArray[Any]) -> None:
        """Adds `[m, ...]` values."""
        size = self._size + len(more)
        if size > len(self._buffer):
            room = max(size, 2 * len(self._buffer))
            grown = np.empty((room, *self._buffer.shape[1:]), self._buffer.dtype)
            grown[: self._size] = self.values
            self._buffer = grown
        self._buffer[self._size : size] = more
        self._size = size
