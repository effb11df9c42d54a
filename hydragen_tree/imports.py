"""Puts off what torch and transformers import and no run needs, until somebody asks for it.

No model's class can be imported without `transformers.modeling_utils`, and with that come torch's
compiler (with sympy and Triton), distributed tensors, and scipy for the losses of object detection:
two fifths of the processor time of all imports (NOTES.md).
"""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_SHARED = ("transformers.modeling_utils", "transformers.generation.utils")
_PACKAGES = ("scipy", "sklearn")
# Questions of transformers; it keeps the answers.
_QUESTIONS = ("is_torch_distributed_available", "is_scipy_available", "is_sklearn_available")


def spare_imports() -> None:
    """Imports transformers without what drawing samples does not need.

    For a process of our own only, before anything else imports transformers: there transformers
    holds from now on that there is no scipy, no scikit-learn and no distributed torch (no number
    depends on that), and what has been made up to here is never searched for garbage. The compiler
    loads when something of it is first used. What is loaded already stays as it is.
    """
    if any(name in sys.modules for name in _SHARED):
        return
    with _uncollected():
        import torch.distributed

        with _hidden(_PACKAGES), _undistributed(torch.distributed):
            asked = import_module("transformers.utils.import_utils")
            for question in _QUESTIONS:
                getattr(asked, question, bool)()
        with _deferred_compiler(torch):
            for name in _SHARED:
                import_module(name)


class _Deferred(ModuleType):
    """A package that runs when it is first used."""

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["__loading__"].attribute(name)


class _Loading:
    """How torch's compiler comes to be loaded, and what it is told then.

    Torch and transformers mark functions for the compiler: those marks wait. Whatever else is asked
    for loads all of it, and so do its submodules, but for what transformers' own import needs.

    Args:
        module: the package, not run yet; it becomes an ordinary one.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._lock = RLock()
        self._is_running = False
        self._waiting: list[Callable[[], object]] = []
        self._marks = {
            "allow_in_graph": self._allow_in_graph,
            "assume_constant_result": self._assume_constant_result,
            "disable": self._disable,
        }

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """Loads all before a submodule is imported: alone they would import each other in a circle.

        As a finder of `sys.meta_path`. The submodule is then there, and only handed out.
        """
        if self._is_running or not name.startswith(f"{_COMPILER}."):
            return None
        with self._lock:
            if type(self._module) is _Deferred:
                self._run()
        if name not in sys.modules:
            return None
        there = sys.modules[name]
        # importlib goes by the spec of a module that came in between, not by what it is given
        there.__spec__ = ModuleSpec(name, _Loaded(there))
        return there.__spec__

    def attribute(self, name: str) -> Any:
        """What the package has by that name.

        Raises:
            AttributeError: there is none.
        """
        if name.startswith("__"):  # as `inspect` looks for in every module
            raise AttributeError(name)
        with self._lock:
            if self._is_running:  # it is about to import a submodule of that name
                raise AttributeError(name)
            if type(self._module) is _Deferred:
                if name in self._marks:
                    return self._marks[name]
                self._run()
        return getattr(self._module, name)

    def _run(self) -> None:
        spec = self._module.__spec__
        assert spec is not None
        assert spec.loader is not None
        self._is_running = True
        try:
            spec.loader.exec_module(self._module)
        finally:
            self._is_running = False
        self._module.__class__ = ModuleType
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for tell in self._waiting:
            tell()

    def _allow_in_graph(self, function: Any) -> Any:
        self._waiting.append(lambda: self._module.allow_in_graph(function))
        return function

    def _assume_constant_result(self, function: Any) -> Any:
        self._waiting.append(lambda: self._module.assume_constant_result(function))
        return function

    def _disable(self, function: Any = None, *how: Any, **options: Any) -> Any:
        """A function that is hidden from the compiler once there is one."""
        if function is None:
            return lambda given: self._disable(given, *how, **options)
        form = function

        def hide() -> None:
            nonlocal form
            form = self._module.disable(function, *how, **options)

        @wraps(function)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return form(*args, **kwargs)

        self._waiting.append(hide)
        return forward


class _Loaded(Loader):
    """Hands out a module that is loaded."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


@contextmanager
def _deferred_compiler(torch: ModuleType) -> Iterator[None]:
    """Defers torch's compiler from here on; inside, its submodules can be had without itself."""
    spec = None if _COMPILER in sys.modules else find_spec(_COMPILER)
    if spec is None:
        yield
        return
    module = module_from_spec(spec)
    module.__class__ = _Deferred
    loading = module.__dict__["__loading__"] = _Loading(module)
    sys.modules[_COMPILER] = torch.__dict__["_dynamo"] = module
    try:
        yield
    finally:
        if type(module) is _Deferred:
            sys.meta_path.insert(0, loading)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Inside, nothing is searched for garbage, and what is there at the end never is.

    Imports make a million objects and hardly any garbage; to look through them time and again, then
    and for as long as the process runs, takes as long as a fifth of the imports.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
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


@contextmanager
def _undistributed(distributed: ModuleType) -> Iterator[None]:
    """Inside, torch says that it was built without distributed tensors."""
    answer = distributed.__dict__["is_available"]
    distributed.__dict__["is_available"] = lambda: False
    try:
        yield
    finally:
        distributed.__dict__["is_available"] = answer
