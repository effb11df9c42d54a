"""Quantities of LaTeX's siunitx as text: `\\SI{5}{\\meter\\per\\second}` becomes `5 m/s`."""

import re

from hydragen_tree.problem.formats.latex_scan import Scanner

_UNITS = {
    "meter": "m", "metre": "m", "second": "s", "gram": "g", "ampere": "A", "kelvin": "K",
    "mole": "mol", "candela": "cd", "hertz": "Hz", "newton": "N", "pascal": "Pa", "joule": "J",
    "watt": "W", "coulomb": "C", "volt": "V", "farad": "F", "ohm": "ohm", "tesla": "T",
    "celsius": "°C", "degreeCelsius": "°C", "degree": "°", "percent": "%", "radian": "rad",
    "minute": "min", "hour": "h", "day": "d", "liter": "l", "litre": "l", "tonne": "t",
    "bit": "bit", "byte": "B", "bel": "B", "electronvolt": "eV", "gal": "Gal", "are": "a",
    "hectare": "ha", "kilogram": "kg",
    "m": "m", "cm": "cm", "mm": "mm", "km": "km", "s": "s", "ms": "ms", "us": "µs", "ns": "ns",
    "g": "g", "kg": "kg", "mg": "mg", "Hz": "Hz", "kHz": "kHz", "MHz": "MHz", "GHz": "GHz",
}  # fmt: skip
_PREFIXES = {
    "pico": "p", "nano": "n", "micro": "µ", "milli": "m", "centi": "c", "deci": "d", "deca": "da",
    "hecto": "h", "kilo": "k", "mega": "M", "giga": "G", "tera": "T", "peta": "P", "kibi": "Ki",
    "mebi": "Mi", "gibi": "Gi", "tebi": "Ti",
}  # fmt: skip
_POWERS = {"squared": "^2", "cubed": "^3"}
_POWERS_BEFORE = {"square": "^2", "cubic": "^3"}
QUANTITIES = ("SI", "qty", "si", "unit", "num", "ang", "numrange", "SIrange", "qtyrange", "numlist")


def quantity(scanner: Scanner, name: str) -> str:
    """The text of one of `QUANTITIES`, whose arguments come next.

    Args:
        scanner: stands behind the command.
        name: the command.
    """
    scanner.optional()
    if name in ("si", "unit"):
        return _unit(scanner.argument())
    if name == "ang":
        return f"{_number(scanner.argument())} degrees"
    if name == "numlist":
        return ", ".join(_number(part) for part in scanner.argument().split(";"))
    number = _number(scanner.argument())
    if name.endswith("range"):
        number += f" to {_number(scanner.argument())}"
    if name in ("num", "numrange"):
        return number
    scanner.optional()  # a unit before the number, in old versions
    unit = _unit(scanner.argument())
    return f"{number}{unit}" if unit in ("%", "°") else f"{number} {unit}".rstrip()


def _number(source: str) -> str:
    """`1e9` as `10^9`, `2.5e-3` as `2.5 x 10^-3`, any other as it is."""
    text = re.sub(r"\\,|[\s~{}$]", "", source).replace("\\pm", " +- ").replace("\\times", " x ")
    found = re.fullmatch(r"([-+]?[\d.,]*)[eE]([-+]?\d+)", text)
    if not found:
        return text
    factor, exponent = found.group(1), found.group(2).removeprefix("+")
    return f"10^{exponent}" if factor in ("", "1") else f"{factor} x 10^{exponent}"


def _unit(source: str) -> str:
    """A unit's macros, or its text as it is."""
    parts: list[str] = []
    scanner = Scanner(source)
    prefix, power, divided = "", "", False

    def add(symbol: str) -> None:
        nonlocal prefix, power, divided
        mark = "/" if divided else " " if parts else ""
        parts.append(f"{mark}{prefix}{symbol}{power}")
        prefix, power, divided = "", "", False

    while not scanner.done:
        if scanner.peek() != "\\":
            parts.append(scanner.argument().replace("~", " ").replace("$", ""))
            continue
        name = scanner.command()
        if name in _PREFIXES:
            prefix = _PREFIXES[name]
        elif name in _POWERS_BEFORE:
            power = _POWERS_BEFORE[name]
        elif name in _POWERS:
            parts.append(_POWERS[name])
        elif name in ("tothe", "raiseto"):
            parts.append(f"^{scanner.argument()}")
        elif name == "per":
            divided = True
        elif len(name) == 1 and not name.isalpha():
            parts.append({"%": "%"}.get(name, " "))
        else:
            add(_UNITS.get(name, name))
    return "".join(parts).strip()
