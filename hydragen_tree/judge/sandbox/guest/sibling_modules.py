"""The files of a Python program beside its main one: modules that can be imported from no disk."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType


def install(files: list[CodeType]) -> None:
    """Let `import` find the files, before anything else of their names.

    Args:
        files: compiled; each knows its path in the program's directory.
    """
    if files:
        sys.meta_path.insert(0, _SiblingFinder(files))


class _SiblingFinder:
    """Finds and loads; directories are packages, with or without an `__init__.py`."""

    def __init__(self, files: list[CodeType]) -> None:
        self._files = {_module_name(code.co_filename): code for code in files}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        is_package = any(other.startswith(f"{name}.") for other in self._files)
        if name not in self._files and not is_package:
            return None
        return ModuleSpec(name, self, is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """The usual kind of module."""

    def exec_module(self, module: ModuleType) -> None:
        code = self._files.get(module.__name__)
        if code is not None:
            exec(code, module.__dict__)


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
