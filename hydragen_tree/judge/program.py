"""A program ready to run."""

import os

from hydragen_tree.judge.sandbox.request import Request, Role, RunLimits


class Program:
    """A program ready to run.

    Args:
        code: its source, of a Python program.
        image: descriptor of its executable, of any other; closed by `close`.
    """

    def __init__(self, code: str, image: int | None = None) -> None:
        self._code, self._image = code, image

    def request(self, limits: RunLimits, role: Role = "program", *more: tuple[str, str]) -> Request:
        """A run of the program.

        Args:
            limits: what it may use.
            role: what is done with it, if it is Python.
            more: (name, text) of further Python code that the role takes.
        """
        if self._image is not None:
            return Request(limits, argv=["solution"], image=self._image)
        return Request(limits, sources=[("solution.py", self._code), *more], role=role)

    def close(self) -> None:
        """Give the compiled image back; may be called again."""
        if self._image is not None:
            os.close(self._image)
            self._image = None
