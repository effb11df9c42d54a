"""Puts off what torch and transformers import and no run needs, until somebody asks for it.

No model's class can be imported without `transformers.modeling_utils`, and with that comes scipy,
for the losses of object detection (NOTES.md). Torch's compiler comes too, and is left to: to put it
off broke compiling on a GPU with torch 2.11.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

_SHARED = ("transformers.modeling_utils", "transformers.generation.utils")
_PACKAGES = ("scipy", "sklearn")
# Questions of transformers; it keeps the answers.
_QUESTIONS = ("is_scipy_available", "is_sklearn_available")


def spare_imports() -> None:
    """Imports transformers without what drawing samples does not need.

    For a process of our own only, before anything else imports transformers: there transformers
    holds from now on that there is no scipy and no scikit-learn; no number depends on that. What
    is loaded already stays as it is.
    """
    if any(name in sys.modules for name in _SHARED):
        return
    with _uncollected():
        with _hidden(_PACKAGES):
            asked = import_module("transformers.utils.import_utils")
            for question in _QUESTIONS:
                getattr(asked, question, bool)()
        for name in _SHARED:
            import_module(name)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Inside, nothing is searched for garbage: imports make a million objects and hardly any.

    What is there at the end is searched again: Triton's bindings complain on stderr of objects that
    are still there when the process ends.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


@contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Inside, packages that are not loaded yet are not found."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
