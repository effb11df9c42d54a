"""Weights come into the system's cache; what cannot be read is left to whoever loads it."""

import ctypes
import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hydragen_tree.model import read_ahead as module
from hydragen_tree.model.read_ahead import read_ahead

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")

SIZE = 4 << 20


def cached_share(file: Path) -> float:
    """Share of a file's pages that are in the cache."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), SIZE, mmap.MAP_PRIVATE) as view:
        pages = SIZE // mmap.PAGESIZE
        found = (ctypes.c_ubyte * pages)()
        place = ctypes.addressof(ctypes.c_char.from_buffer(view))
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(place), ctypes.c_size_t(SIZE), found) == 0
    return sum(page & 1 for page in found) / pages


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that is on the disk only."""
    file = tmp_path / "model.safetensors"
    with file.open("wb") as stream:
        stream.write(os.urandom(SIZE))
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_share(file) > 0:
        pytest.skip("this file system has no other place than memory")
    return file


@pytest.mark.parametrize("named", ["directory", "file"])
def test_weights_are_in_the_cache_before_anybody_reads_them(weights: Path, named: str) -> None:
    if named == "file":
        weights = weights.rename(weights.with_suffix(".gguf"))
    reader = read_ahead(str(weights if named == "file" else weights.parent))
    assert reader is not None
    reader.join()
    latest = time.monotonic() + 20
    while cached_share(weights) < 1 and time.monotonic() < latest:
        time.sleep(0.01)
    assert cached_share(weights) == 1


def test_what_memory_does_not_hold_is_not_asked_for(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHARE", 1e-9)
    assert read_ahead(str(weights.parent)) is None


@pytest.mark.parametrize("model", ["tiny", "owner/name", "/no/such/place", ""])
def test_what_is_no_directory_is_left_alone(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_ahead(model) is None


def test_it_does_not_import_torch() -> None:
    code = "import sys, hydragen_tree.model.read_ahead; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
