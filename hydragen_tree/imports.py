"""Spares a process of our own what torch and transformers import and no run needs.

No model's class can be imported without `transformers.modeling_utils`, and with that come torch's
compiler, distributed tensors with sympy, and scipy for the losses of object detection: half the
processor time of all imports (NOTES.md).
"""

import atexit
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

_SHARED = ("transformers.modeling_utils", "transformers.generation.utils")
_PACKAGES = ("scipy", "sklearn")
_OF_GPUS = ("causal_conv1d", "fla", "mamba_ssm")
_GPU = Path("/dev/nvidiactl")  # with one, a run without the compiler has not been tried yet
_COMPILER = "torch._dynamo"
_MASKS = "torch._dynamo._trace_wrapped_higher_order_op"

_Function = TypeVar("_Function", bound=Callable[..., Any])

_spared: set[str] = set()  # modules that this process does without


def spare_imports(*, compiles: bool = False) -> None:
    """Imports transformers without what drawing samples does not need.

    For a process of our own only, before anything else imports transformers: there transformers
    holds from now on that there is no scipy, no scikit-learn and no distributed torch (no number
    depends on that), and what is imported here is searched for garbage at the end only. What is
    loaded already stays as it is.

    Args:
        compiles: layers are to be compiled: torch's compiler is not spared, nor are distributed
            tensors, which come with it.
    """
    if any(name in sys.modules for name in _SHARED):
        return
    with _uncollected():
        with _hidden(_PACKAGES):
            _ask("is_scipy_available", "is_sklearn_available")
        if not compiles and _COMPILER not in sys.modules and not _GPU.exists():
            import torch.distributed

            with _undistributed(torch.distributed):
                _ask("is_torch_distributed_available")
            # A version that asks the compiler for more gets it below.
            with suppress(ImportError, AttributeError), _without_compiler():
                _import_shared()
                _spared.add(_COMPILER)
        _import_shared()


def without_gpu_libraries(device: str) -> AbstractContextManager[None]:
    """Inside, on a CPU, classes of models are imported without libraries that need a GPU.

    transformers takes these for layers with states wherever they are installed, and their kernels
    refuse tensors of a CPU. transformers asks once for all: a process that has loaded a model for a
    CPU does without these libraries from then on.

    Args:
        device: kind of the device, `cpu`, `cuda`, ...
    """
    return _hidden(_OF_GPUS if device == "cpu" else ())


def hidden_from_compiler(function: _Function) -> _Function:
    """A function that torch's compiler does not look into; itself where the process has none."""
    if _COMPILER in _spared:
        return function
    import torch

    hidden: _Function = torch.compiler.disable(function)
    return hidden


def _ask(*questions: str) -> None:
    """Asks transformers what there is; it keeps the answers."""
    asked = import_module("transformers.utils.import_utils")
    for question in questions:
        getattr(asked, question, bool)()


def _import_shared() -> None:
    for name in _SHARED:
        import_module(name)


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Inside, torch's compiler is what transformers needs of it to be imported.

    Marks on functions, which only the compiler reads; and a context for masks that are made under
    `vmap`, which gets the compiler when it is entered. Outside, it can be imported as ever.
    """
    compiler, masks = ModuleType(_COMPILER), ModuleType(_MASKS)
    marks = ("allow_in_graph", "assume_constant_result", "disable")
    vars(compiler).update(dict.fromkeys(marks, _as_it_is))
    vars(masks).update(TransformGetItemToIndex=_index_by_tensors)
    stand_ins = {_COMPILER: compiler, _MASKS: masks}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _as_it_is(function: Any = None, *_: Any, **__: Any) -> Any:
    """A mark, given at once or after its options."""
    return _as_it_is if function is None else function


def _index_by_tensors() -> Any:
    return import_module(_MASKS).TransformGetItemToIndex()


@contextmanager
def _undistributed(distributed: ModuleType) -> Iterator[None]:
    """Inside, torch says that it was built without distributed tensors."""
    answer = vars(distributed)["is_available"]
    vars(distributed)["is_available"] = lambda: False
    try:
        yield
    finally:
        vars(distributed)["is_available"] = answer


@contextmanager
def _uncollected() -> Iterator[None]:
    """Inside, nothing is searched for garbage, and what is there at the end only at exit.

    Imports make a million objects and hardly any garbage. When the process ends they are searched
    after all: Triton's bindings complain on stderr of objects that are still there.
    """
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)
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
