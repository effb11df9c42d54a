"""Python values as JSON, for what crosses between a program and whoever asks it.

Nothing is pickled: a value from a program is rebuilt from plain parts, so it can neither run code
nor bring an `__eq__` of its own. What has no plain parts crosses as a reference to the object.
"""

from __future__ import annotations

import base64
import collections
import math
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from decimal import Decimal
from fractions import Fraction
from typing import Any

_BIG = 1 << 63
# Lists of nothing else, the most frequent of all, need no look at every item.
_WORDS = {str, bool, type(None)}
_NESTED = {list, dict}
# Iterated as the plain type does it, whatever a subclass says.
_COLLECTIONS: tuple[Any, ...] = (tuple, set, frozenset, collections.deque)
# Types that cross as what they are; a derived one comes before its base.
PLAIN: tuple[Any, ...] = (
    *(type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset),
    *(collections.Counter, collections.OrderedDict, collections.defaultdict, dict),
    *(collections.deque, range, Decimal, Fraction),
)
_PLAIN = frozenset(PLAIN)
# What a test may do with a value.
OPERATIONS = (
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__bool__"),
    *("__len__", "__iter__", "__next__", "__contains__", "__getitem__", "__reversed__"),
    *("__sub__", "__rsub__", "__abs__", "__round__", "__pow__", "__mul__", "__rmul__"),
    *("__add__", "__radd__", "__int__", "__float__", "__index__"),
)
_VIEWS: dict[str, Any] = {"keys": KeysView, "values": ValuesView, "items": ItemsView}
# From the key, what rebuilds a value from its parts.
_REBUILD: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "float": float,
    "complex": lambda parts: complex(*parts),
    "bytes": base64.b64decode,
    "bytearray": lambda text: bytearray(base64.b64decode(text)),
    "range": lambda parts: range(*parts),
    "decimal": Decimal,
    "fraction": Fraction,
}
_COLLECT: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": collections.deque,
    "iterator": iter,
    "dict": lambda pairs: {key: value for key, value in pairs},  # noqa: C416
    "counter": lambda pairs: collections.Counter(dict(pairs)),
    "ordered": lambda pairs: collections.OrderedDict(pairs),
    "default": lambda pairs: collections.defaultdict(None, pairs),
    "keys": lambda keys: dict.fromkeys(keys).keys(),
    "values": lambda values: dict(enumerate(values)).values(),
    "items": lambda pairs: dict(pairs).items(),
}


def encode(
    value: Any,
    refer: Callable[[Any], Any],
    keep: Callable[[Any], bool] | None = None,
) -> Any:
    """A value as what `json` can write.

    Args:
        value: any object.
        refer: gives what stands for an object that has no plain form.
        keep: tells which objects of derived types are to be taken as if they had no plain form;
            without it a view of a dictionary is a list.

    Raises:
        RecursionError: it is nested too deeply, or contains itself.
    """
    if value is None or value is True or value is False:
        return value
    if keep is not None and type(value) not in _PLAIN and keep(value):
        return refer(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int(value)
        return number if -_BIG <= number < _BIG else {"int": hex(number)}
    if isinstance(value, float):
        real = float(value)
        return real if math.isfinite(real) else {"float": repr(real)}
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), refer, keep)
    if isinstance(value, list):
        return _encode_list(list(list.__iter__(value)), refer, keep)
    for name, view in _VIEWS.items():
        if isinstance(value, view):
            items = [encode(item, refer, keep) for item in value]
            return items if keep is None else {name: items}
    if isinstance(value, dict):
        return _encode_dict(value, refer, keep)
    for kind in _COLLECTIONS:
        if isinstance(value, kind):
            return {kind.__name__: [encode(item, refer, keep) for item in kind.__iter__(value)]}
    if isinstance(value, Iterator):
        return {"iterator": [encode(item, refer, keep) for item in value]}
    return _encode_scalar(value, refer)


def _encode_dict(
    value: dict[Any, Any], refer: Callable[[Any], Any], keep: Callable[[Any], bool] | None
) -> Any:
    kind, items = "dict", list(dict.items(value))
    if isinstance(value, collections.Counter):
        kind = "counter"
    elif isinstance(value, collections.defaultdict):
        kind = "default"
    elif isinstance(value, collections.OrderedDict):  # whose order `dict.items` does not know
        kind = "ordered"
        items = [(k, dict.get(value, k)) for k in collections.OrderedDict.keys(value)]
    return {kind: [[encode(k, refer, keep), encode(v, refer, keep)] for k, v in items]}


def _encode_list(
    items: list[Any], refer: Callable[[Any], Any], keep: Callable[[Any], bool] | None
) -> list[Any]:
    kinds = set(map(type, items))
    if kinds == {int} and -_BIG <= min(items) <= max(items) < _BIG:
        return items
    if kinds <= _WORDS or (kinds == {float} and all(map(math.isfinite, items))):
        return items
    return [encode(item, refer, keep) for item in items]


def _encode_scalar(value: Any, refer: Callable[[Any], Any]) -> Any:
    if isinstance(value, (bytes, bytearray)):
        name = "bytes" if isinstance(value, bytes) else "bytearray"
        return {name: base64.b64encode(value).decode()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, (Decimal, Fraction)):
        return {type(value).__name__.lower(): str(value)}
    return refer(value)


def decode(plain: Any, find: Callable[[dict[str, Any]], Any]) -> Any:
    """The value that `encode` wrote.

    Args:
        plain: what `json` read.
        find: gives what stands for a reference: `{"object": ..., "type": name}`.

    Raises:
        ValueError, TypeError, KeyError: it is not something `encode` writes.
    """
    if isinstance(plain, list):
        if _NESTED.isdisjoint(map(type, plain)):
            return plain.copy()
        return [decode(item, find) for item in plain]
    if not isinstance(plain, dict):
        return plain
    if "object" in plain:
        return find(plain)
    [(kind, parts)] = plain.items()
    if kind in _COLLECT:
        return _COLLECT[kind](decode(parts, find))
    return _REBUILD[kind](parts)
