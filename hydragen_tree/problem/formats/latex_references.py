"""The numbers that LaTeX's references show: figures, tables, equations and sections in order."""

import re

_PLACES = re.compile(
    r"\\begin\{(?P<begin>[A-Za-z]+\*?)\}|\\end\{(?P<end>[A-Za-z]+\*?)\}"
    r"|\\(?P<section>section|subsection|item)(?P<star>\*?)(?![A-Za-z])"
    r"|\\label\s*\{(?P<label>[^{}]*)\}"
)
_KINDS = {
    "figure": "Figure", "wrapfigure": "Figure", "table": "Table", "wraptable": "Table",
    "equation": "Equation", "align": "Equation", "gather": "Equation", "eqnarray": "Equation",
    "multline": "Equation", "lstlisting": "Listing", "algorithm": "Algorithm",
}  # fmt: skip


def kind_of(environment: str) -> str | None:
    """What a numbered environment is called in a reference; None for any other."""
    return _KINDS.get(environment.removesuffix("*"))


def number_labels(source: str) -> dict[str, tuple[str, str]]:
    """(what it is, its number) of every label.

    Args:
        source: LaTeX without comments, macros written out.
    """
    counts: dict[str, int] = {}
    open_: list[tuple[str, int]] = []  # numbered environments, and lists
    section, labels = ("Section", 0), dict[str, tuple[str, str]]()
    for found in _PLACES.finditer(source):
        if name := found.group("begin"):
            kind = "Item" if name == "enumerate" else kind_of(name)
            if kind == "Item":
                open_.append((kind, 0))
            elif kind:
                counts[kind] = counts.get(kind, 0) + 1
                open_.append((kind, counts[kind]))
        elif name := found.group("end"):
            if open_ and (name == "enumerate" or kind_of(name)):
                open_.pop()
        elif found.group("section") == "item":
            if open_ and open_[-1][0] == "Item":
                open_[-1] = ("Item", open_[-1][1] + 1)
        elif found.group("section") == "section" and not found.group("star"):
            section = ("Section", section[1] + 1)
        elif label := found.group("label"):
            kind, number = open_[-1] if open_ else section
            labels[label] = (kind, str(number or "?"))
    return labels
