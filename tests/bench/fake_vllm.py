"""A stand-in of vLLM that other processes import in its place."""

from pathlib import Path

import pytest

_ARGUMENTS = """
from dataclasses import dataclass

@dataclass
class EngineArgs:
    model: str = ""
    disable_cascade_attn: object = DEFAULT
    cudagraph_capture_sizes: object = None
"""


class FakeVllm:
    """A package of that name.

    Args:
        folder: for its files.
        module: the source of what it holds; `FAKE_VLLM_LOG` in its environment names a file.
        monkeypatch: sets the environment of the processes that import it.

    Attributes:
        log: the file that `FAKE_VLLM_LOG` names.
    """

    def __init__(self, folder: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = folder / "asked.json"
        self._package = folder / "site" / "vllm"
        (self._package / "engine").mkdir(parents=True)
        (self._package / "engine" / "__init__.py").touch()
        self.hold(module)
        self.disable_cascade_by(True)
        monkeypatch.setenv("PYTHONPATH", str(folder / "site"))
        monkeypatch.setenv("FAKE_VLLM_LOG", str(self.log))

    def hold(self, module: str) -> None:
        """Takes another source."""
        (self._package / "__init__.py").write_text(module)

    def disable_cascade_by(self, default: bool | None) -> None:
        """Sets the default of the engine's option; None: a version without cascade attention."""
        arguments = _ARGUMENTS.replace("DEFAULT", repr(default))
        (self._package / "engine" / "arg_utils.py").write_text(arguments)
