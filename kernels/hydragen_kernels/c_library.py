"""Libraries in C, compiled for the machine at hand when first wanted, kept in the user's cache."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from platformdirs import user_cache_path

_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC")
_DIGEST_BYTES = 32


def c_library(sources: Sequence[Path], flags: Sequence[str] = ()) -> ctypes.CDLL | str:
    """A library, or why there is none.

    Args:
        sources: the file that is compiled, and those that it includes.
        flags: for the compiler, beside the usual ones.
    """
    if not sys.platform.startswith("linux"):
        return "it is built on Linux only"
    names = [os.environ.get("CC", ""), "gcc", "cc"]
    compiler = next(filter(None, map(shutil.which, filter(None, names))), None)
    if compiler is None:
        return "no C compiler (gcc, cc or $CC)"
    openmp = _torch_openmp()
    if openmp is None:
        return "torch has another OpenMP runtime than GCC's"
    try:
        return _compiled(sources, compiler, (*_FLAGS, *flags), openmp)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        return f"{compiler} failed: {lines[0]}"
    except OSError as error:  # or what another compiler made cannot be loaded
        return f"{compiler}: {error}"


def why_missing(built: ctypes.CDLL | str) -> str | None:
    """Why there is no library; None if there is one."""
    return built if isinstance(built, str) else None


def loaded(built: ctypes.CDLL | str) -> ctypes.CDLL:
    """A library that is known to be there."""
    assert not isinstance(built, str), built
    return built


def _torch_openmp() -> str | None:
    """The file of GCC's OpenMP that torch has loaded: threads of another one would compete."""
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    files = {line.split(maxsplit=5)[-1] for line in mapped}
    found = sorted(f for f in files if Path(f).name.startswith("libgomp"))
    torch_root = Path(torch.__file__).parent  # other packages bring copies of their own
    homes = (torch_root, torch_root.with_name("torch.libs"))
    own = [f for f in found if any(Path(f).is_relative_to(home) for home in homes)]
    return next(iter((*own, *found)), None)


def _compiled(
    sources: Sequence[Path], compiler: str, flags: tuple[str, ...], openmp: str
) -> ctypes.CDLL:
    """The library for these sources, compiler and CPU: from the cache, or compiled into it."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    texts = [source.read_bytes() for source in sources]
    parts = (*texts, " ".join((*flags, openmp)).encode(), version, _cpu())
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16] + ".so"
    folder = user_cache_path("hydragen") / "native"
    if kept := _kept(folder / name):
        return kept
    with _workplace(folder) as place:
        object_file, built = Path(place) / "native.o", Path(place) / name
        for command in (
            [compiler, *flags, "-c", str(sources[0]), "-o", str(object_file)],
            [compiler, "-shared", str(object_file), openmp, "-lm", "-o", str(built)],
        ):
            subprocess.run(command, capture_output=True, check=True)
        library = ctypes.CDLL(str(built))
        with suppress(OSError):  # at once, as other processes may do the same; or not kept at all
            _seal(built).replace(folder / name)
        return library


def _seal(built: Path) -> Path:
    """A copy with its digest behind it, which loaders do not look at."""
    data = built.read_bytes()
    sealed = built.with_suffix(".sealed")
    sealed.write_bytes(data + hashlib.sha256(data).digest())
    return sealed


def _kept(path: Path) -> ctypes.CDLL | None:
    """A library from the cache; None if it is not there, or cut short: to load that would crash."""
    with suppress(OSError):
        data = path.read_bytes()
        if hashlib.sha256(data[:-_DIGEST_BYTES]).digest() == data[-_DIGEST_BYTES:]:
            return ctypes.CDLL(str(path))
    return None


def _workplace(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A directory within the folder, or, if nothing can be written there, anywhere."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder)
    except OSError:
        return tempfile.TemporaryDirectory()


def _cpu() -> bytes:
    """What `-march=native` goes by: the processor's model and features."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].splitlines()
    except OSError:
        return b""
    names = (b"model", b"flags", b"Features", b"CPU part")
    return b"\n".join(line for line in lines if line.startswith(names))
