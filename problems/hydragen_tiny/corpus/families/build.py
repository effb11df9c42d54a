"""Short constructors, so that a table of families reads as a table."""

from collections.abc import Callable
from typing import Any

from hydragen_tiny.corpus.parts import Family, KRange, Result


def family(
    kind: str,
    result: Result,
) -> Callable[..., Family]:
    """A constructor of families of one kind of input and one kind of answer."""

    def build(
        name: str,
        ask: tuple[str, ...],
        code: tuple[str, ...],
        spec: Callable[..., Any],
        *,
        fold: tuple[str, str] | None = None,
        k: KRange | None = None,
        least: int = 1,
        natural_only: bool = False,
        intros: tuple[str, ...] = (),
        defined: tuple[tuple[str, str], ...] = (),
        columns: str = "x and y",
        weight: float = 1.0,
    ) -> Family:
        return Family(
            name,
            kind,
            result,
            ask,
            code,
            spec,
            fold,
            k,
            least,
            natural_only,
            intros,
            defined,
            columns,
            weight,
        )

    return build
