"""YAML as plain data, together with the place in the file where each key stands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from hydragen_tree.errors import InputError


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document.

    Args:
        name: the file, as messages name it.
        data: lists, mappings, text, numbers.
        node: its syntax tree, which knows the lines; None for data that came from elsewhere.
    """

    name: str
    data: Any
    node: Node | None = None

    def where(self, keys: Sequence[int | str] = ()) -> str:
        """`file:line` of a key or list item, or of the nearest thing above it that is there."""
        return self.name if self.node is None else f"{self.name}:{self.line(keys)}"

    def line(self, keys: Sequence[int | str]) -> int:
        """The line of `where`, from 1; 0 for data that came from elsewhere."""
        if self.node is None:
            return 0
        node, line = self.node, self.node.start_mark.line
        for key in keys:
            below = dict(_children(node))
            if key not in below:
                break
            line, node = below[key]
        return int(line) + 1


def read_yaml(path: Path) -> list[Document]:
    """The documents of a file; see `parse_yaml`.

    Raises:
        InputError: it cannot be read, or is not valid YAML.
    """
    try:
        return parse_yaml(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def parse_yaml(content: bytes, name: str) -> list[Document]:
    """The YAML 1.2 documents of a UTF-8 text, at least one; empty ones are left out.

    Args:
        content: what the file holds.
        name: the file, as messages name it.

    Raises:
        InputError: it is not UTF-8, not valid YAML, empty, or says a key twice.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise InputError(f"{name}:{line}: {byte}, expected the file saved as UTF-8") from None
    yaml = YAML(typ="safe", pure=True)
    yaml.allow_duplicate_keys = True  # ours names all of them
    documents = []
    try:
        for node in yaml.compose_all(text):
            if twice := list(_duplicates(name, node, (), set())):
                raise InputError("\n".join(twice))
            documents.append(Document(name, yaml.constructor.construct_document(node), node))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ": ".join(part for part in (error.context, error.problem) if part)
        if text.split("\n")[mark.line][mark.column : mark.column + 1] == "\t":
            reason = "a tab, expected spaces: YAML indents with nothing else"
        raise InputError(
            f"{name}:{mark.line + 1}:{mark.column + 1}: not valid YAML: {reason}"
        ) from None
    except ReaderError as error:
        before = text[: error.position].split("\n")
        raise InputError(
            f"{name}:{len(before)}:{len(before[-1]) + 1}: not valid YAML: control character "
            f"{chr(error.character)!r}, expected it escaped in double quotes"
        ) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: not valid YAML: {error}") from None
    documents = [document for document in documents if document.data is not None]
    if not documents:
        raise InputError(f"{name}:1: empty, expected a YAML mapping")
    return documents


def _children(node: Node) -> Iterator[tuple[int | str, tuple[int, Node]]]:
    """What is directly below: key or index, with its line and node."""
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield index, (item.start_mark.line, item)
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            if isinstance(key, ScalarNode):
                yield key.value, (key.start_mark.line, value)


def _duplicates(
    name: str, node: Node, above: tuple[int | str, ...], visited: set[int]
) -> Iterator[str]:
    """One line for every key that its mapping says again."""
    if id(node) in visited:  # an alias
        return
    visited.add(id(node))
    first: dict[int | str, int] = {}
    for key, (line, child) in _children(node):
        here = (*above, key)
        if key in first:
            at = f"{name}:{line + 1}: {key_path(here)}"
            yield f"{at}: given twice, expected once; the first is at line {first[key] + 1}"
        first.setdefault(key, line)
        yield from _duplicates(name, child, here, visited)


def key_path(keys: Sequence[int | str]) -> str:
    """Keys and indices as people write them: `tests[2].input`."""
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return "".join(parts).removeprefix(".")
