"""Values of function tests on their way between the processes."""

import json
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hydragen_tree.judge.sandbox.guest import wire


def there_and_back(value: Any) -> Any:
    def no_object(value: object) -> int:
        raise TypeError(value)

    def no_reference(reference: dict[str, Any]) -> object:
        raise TypeError(reference)

    return wire.decode(json.loads(json.dumps(wire.encode(value, no_object))), no_reference)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.decimals(allow_nan=False) | st.fractions()
)  # fmt: skip


hashable = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner).map(tuple), max_leaves=5
)


values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(hashable, inner)
        | st.sets(hashable)
        | st.frozensets(hashable)
    ),
    max_leaves=20,
)


@given(values)
def test_values_cross_unchanged(value: Any) -> None:
    back = there_and_back(value)
    assert repr(back) == repr(value) or back == value
    assert type(back) is type(value)


def test_collections_keep_their_type() -> None:
    ordered = OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    grouped = defaultdict(list, {1: [2]})
    for value in (Counter(a=2, b=0), ordered, grouped, [Counter("x")]):
        back = there_and_back(value)
        assert (back, type(back)) == (value, type(value))
    assert there_and_back(defaultdict(lambda: 1, {1: 2})) == {1: 2}


def test_values_of_derived_types_cross_as_plain_ones() -> None:
    pair = namedtuple("pair", "a b")

    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    for value, plain in (
        (pair(1, 2), (1, 2)),
        ({1: 2}.keys(), [1]),
        (Liar(5), 5),
        ([Liar(5), 6], [5, 6]),
    ):
        back = there_and_back(value)
        assert back == plain
        assert type(back) is type(plain)
    assert there_and_back(deque([1])) == deque([1])
    assert list(there_and_back(x for x in (1, 2))) == [1, 2]
    assert there_and_back(range(3)) == range(3)
    assert there_and_back(10**5000) == 10**5000
    assert there_and_back(Decimal("1.10")) == Decimal("1.10")
    assert there_and_back(Fraction(1, 3)) == Fraction(1, 3)


def test_lists_that_need_a_look_at_every_item() -> None:
    """Most do not: those of plain words, of integers that fit into 64 bits, of finite numbers."""
    edge, infinite = 1 << 63, float("inf")
    for value in ([edge], [-edge - 1, 1], [edge - 1, -edge], [True, 2], [0.5, infinite], [1, 0.5]):
        back = there_and_back(value)
        assert (back, list(map(type, back))) == (value, list(map(type, value)))
    given = [1, 2]
    assert wire.encode(given, lambda value: 0) is not given
    assert wire.decode(given, lambda reference: None) is not given
