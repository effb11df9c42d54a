"""Documents of problems as YAML that is good to read: text in blocks, small things on one line."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

WIDTH = 96  # longest line that holds a whole list or mapping

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 _./()+-]*[A-Za-z0-9_)+]|[A-Za-z]")
_RESERVED = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
# What a block may hold: YAML's printable characters, except those it reads as line breaks.
_UNPRINTABLE = re.compile(
    r"[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


def to_yaml(document: Mapping[str, Any]) -> str:
    """A document of strings, numbers, booleans, lists and mappings as YAML.

    Any YAML 1.2 reader gives back an equal document: text is kept to the last space.
    """
    return "".join(_entry(key, value, 0) for key, value in document.items())


def with_time_limit(text: str, seconds: float) -> str:
    """A problem file's text with another time limit; everything else stays as it is.

    Args:
        text: a problem file that has been read without faults.
        seconds: the new `limits.time_s`.
    """
    root = YAML(typ="safe", pure=True).compose(text)
    values = {key.value: value for key, value in root.value}
    limit = f"{seconds:g}"
    limits = values.get("limits")
    if limits is None:
        return _with_entry(text, root, f"limits: {{time_s: {limit}}}")
    if not limits.value:
        return _with_value(text, limits, f"{{time_s: {limit}}}")
    for key, value in limits.value:
        if key.value == "time_s":
            return _with_value(text, value, limit)
    return _with_entry(text, limits, f"time_s: {limit}")


def _with_value(text: str, node: Node, value: str) -> str:
    return f"{text[: node.start_mark.index]}{value}{text[node.end_mark.index :]}"


def _with_entry(text: str, mapping: MappingNode, entry: str) -> str:
    """Put an entry in front of a mapping's last one."""
    place = mapping.value[-1][0].start_mark
    gap = ", " if mapping.flow_style else "\n" + " " * place.column
    return f"{text[: place.index]}{entry}{gap}{text[place.index :]}"


def _entry(key: Any, value: Any, depth: int) -> str:
    """`key: value` at an indentation of `depth` levels, with its newline."""
    lead = "  " * depth + f"{_scalar(key)}:"
    if isinstance(value, str) and _is_block(value):
        return f"{lead} {_block(value, depth + 1)}"
    flow = _flow(value)
    if flow is not None and len(lead) + 1 + len(flow) <= WIDTH:
        return f"{lead} {flow}\n"
    if isinstance(value, Mapping) and value:
        return f"{lead}\n" + "".join(_entry(k, v, depth + 1) for k, v in value.items())
    if isinstance(value, list | tuple) and value:
        return f"{lead}\n" + "".join(_item(item, depth) for item in value)
    return f"{lead} {_scalar(value)}\n"


def _item(value: Any, depth: int) -> str:
    """`- value`; dashes stand below the key that they belong to."""
    lead = "  " * depth + "-"
    if isinstance(value, str) and _is_block(value):
        return f"{lead} {_block(value, depth + 1)}"
    flow = _flow(value)
    if flow is not None and len(lead) + 1 + len(flow) <= WIDTH:
        return f"{lead} {flow}\n"
    if isinstance(value, Mapping) and value:
        body = "".join(_entry(k, v, depth + 1) for k, v in value.items())
        return f"{lead} {body.removeprefix('  ' * (depth + 1))}"
    if isinstance(value, list | tuple) and value:
        body = "".join(_item(item, depth + 1) for item in value)
        return f"{lead} {body.removeprefix('  ' * (depth + 1))}"
    return f"{lead} {_scalar(value)}\n"


def _flow(value: Any) -> str | None:
    """A value on one line; None where it holds text of several lines."""
    if isinstance(value, Mapping):
        parts = [(_flow(key), _flow(item)) for key, item in value.items()]
        if any(part is None for pair in parts for part in pair):
            return None
        return "{" + ", ".join(f"{key}: {item}" for key, item in parts) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(item, Mapping) and len(item) > 1 for item in value):
            return None  # records, such as tests, take a line each
        items = [_flow(item) for item in value]
        return None if any(item is None for item in items) else f"[{', '.join(map(str, items))}]"
    if isinstance(value, str) and value.rstrip("\n").count("\n") > 1:
        return None
    return _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return str(value)
    return _quoted(value)


def _float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    mantissa, mark, exponent = repr(value).partition("e")
    return mantissa + (".0" if "." not in mantissa else "") + mark + exponent


def _quoted(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    shown = "".join(escapes.get(char, char) for char in text)
    return f'"{_UNPRINTABLE.sub(lambda m: _escape(m.group()), shown)}"'


def _escape(char: str) -> str:
    code = ord(char)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def _is_block(text: str) -> bool:
    """Whether text is best kept in a block: several lines or a long one, all printable."""
    lines = text.rstrip("\n").count("\n") + 1
    wanted = lines > 1 or (len(text) > WIDTH and text.endswith("\n"))
    return wanted and bool(text.strip()) and not _UNPRINTABLE.search(text)


def _block(text: str, depth: int) -> str:
    """A literal block, with its header; the header says how the text ends and is indented."""
    body = text.rstrip("\n")
    ending = {0: "-", 1: ""}.get(len(text) - len(body), "+")
    # Where the first line is empty or indented itself, the reader must be told the indentation.
    marked = "2" if body.startswith((" ", "\n", "\t")) else ""
    pad = "  " * depth
    lines = [f"{pad}{line}" if line else "" for line in text.removesuffix("\n").split("\n")]
    return f"|{marked}{ending}\n" + "\n".join(lines) + "\n"
