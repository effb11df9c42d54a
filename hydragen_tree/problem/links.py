"""Symbolic links in folders that are read: followed, as long as they lead somewhere, and not out.

The package format allows links within a package only. One that leads out of it could bring any
file of this machine into a prompt, and is gone as soon as the package is moved.
"""

from collections.abc import Iterator
from pathlib import Path

from hydragen_tree.errors import InputError


def files_below(path: Path) -> list[Path]:
    """The files of a folder and of those below it, sorted, links followed; or the file itself.

    Raises:
        InputError: a link leads nowhere, or to a folder that it is in.
    """
    if not path.is_dir():
        return [path]
    return sorted(entry for entry in _walk(path, (path.resolve(),)) if entry.is_file())


def refuse_links_out(package: Path, parts: tuple[str, ...]) -> None:
    """Refuse parts of a package that links lead out of it from, or nowhere.

    Args:
        package: its folder; it may be a link itself.
        parts: paths of files and folders in it; what is not there is passed over.

    Raises:
        InputError: a link leads out of the package, nowhere, or to a folder that it is in.
    """
    home = package.resolve()
    for part in parts:
        path = package
        above: tuple[Path, ...] = (home,)
        for name in Path(part).parts:
            path /= name
            _check(path, above, home)
            above = (*above, path.resolve())
        if path.is_dir():
            for _ in _walk(path, above, home):
                pass


def _walk(folder: Path, above: tuple[Path, ...], home: Path | None = None) -> Iterator[Path]:
    """Everything below a folder, links followed.

    Args:
        folder: the folder.
        above: it and the folders that it is in, resolved.
        home: the package that no link may lead out of, resolved, and whose dot files are nobody's;
            None for other folders.
    """
    for entry in folder.iterdir():
        if home is not None and entry.name.startswith("."):
            continue
        _check(entry, above, home)
        yield entry
        if entry.is_dir():
            yield from _walk(entry, (*above, entry.resolve()), home)


def _check(path: Path, above: tuple[Path, ...], home: Path | None) -> None:
    if path.is_symlink() and (fault := _fault(path, above, home)):
        raise InputError(f"{path}: a link to {path.readlink()}, which {fault}")


def _fault(link: Path, above: tuple[Path, ...], home: Path | None) -> str | None:
    """What is wrong with a symbolic link, and what to do."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # gone, or links in a circle
        return "is not there: put the file in its place"
    if home is not None and not target.is_relative_to(home):
        return (
            "is outside of the package: put the file itself in its place; "
            "`cp -rL PACKAGE COPY` copies a package so that every link becomes a file"
        )
    if target in above:
        return "it lies in: remove it"
    return None
