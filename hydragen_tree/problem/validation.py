"""From pydantic's errors to lines that name file, line and key, what is wrong, what is expected."""

import difflib
import reprlib
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hydragen_tree.errors import InputError
from hydragen_tree.problem.yaml_lines import Document, key_path

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]

_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "model_attributes_type": "a mapping with `type`",
    "model_type": "a mapping",
    "string_type": "text",
    "string_unicode": "text that is valid Unicode",
    "tuple_type": "a list",
    "union_tag_not_found": "a mapping with `type`",
}
_BLANK = r"\S"  # the pattern of text that must not be blank


class _YamlRepr(reprlib.Repr):
    """Values in short, with the constants named as YAML names them."""

    def repr_NoneType(self, value: None, level: int) -> str:  # noqa: N802
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"


_AS_IN_YAML = _YamlRepr()


def validate(
    model: type[Model], document: Document, values: Any = None, *, context: object = None
) -> Model:
    """A document as a value of the model.

    Args:
        model: what it must be.
        document: where the data stands.
        values: the data, where it is more than the document holds.
        context: for the model's validators.

    Raises:
        InputError: it is not valid; every fault is a line of the message.
    """
    data = document.data if values is None else values
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        faults = [(_keys_in(data, fault["loc"]), fault) for fault in error.errors()]
        faults.sort(key=lambda pair: document.line(pair[0]))
        lines = [
            f"{document.where(keys)}: {_describe(fault, keys, model)}" for keys, fault in faults
        ]
        raise InputError("\n".join(lines)) from None


def _describe(fault: ErrorDetails, keys: Location, model: type[BaseModel]) -> str:
    """The key, what is wrong with it, and what is expected."""
    missing = fault["loc"][-1:] if fault["type"] == "missing" else ()
    name = key_path((*keys, *missing))
    return f"{name}: {_explain(fault, model)}" if name else _explain(fault, model)


def _explain(fault: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong and what is expected."""
    kind, given, context = fault["type"], fault["input"], fault.get("ctx", {})
    name = str(fault["loc"][-1]) if fault["loc"] else ""
    fields = {
        name: field
        for owner in _models_at(model, fault["loc"][:-1])
        for name, field in owner.model_fields.items()
        if not field.exclude
    }
    if kind == "missing":
        description = (fields[name].description or name).split("\n")[0].rstrip(".")
        return f"missing, expected {description[0].lower()}{description[1:]}"
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(name, fields, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(fields)}"
        return f"unknown key, {hint}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "too_short":
        return f"empty, expected at least {context['min_length']}"
    if kind == "union_tag_invalid":
        given, expected = context["tag"], f"one of {context['expected_tags']}"
    elif kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        expected = "text that is not blank" if pattern == _BLANK else f"text that matches {pattern}"
    else:
        expected = _EXPECTED.get(kind, fault["msg"].removeprefix("Input should be "))
    scalar = not isinstance(given, dict | list | None)
    quotes = " (put it in quotes)" if kind == "string_type" and scalar else ""
    return f"got {_AS_IN_YAML.repr(given)}, expected {expected}{quotes}"


def _keys_in(data: Any, location: Location) -> Location:
    """The part of a location that the data has: without names of union members, which no file has.

    A key that is missing is not part of it either.
    """
    keys: list[int | str] = []
    for step in location:
        known = range(len(data)) if isinstance(data, list | tuple) else data
        if isinstance(known, dict | range) and step in known:
            data = data[step]
            keys.append(step)
    return tuple(keys)


def _models_at(model: type[BaseModel], location: Location) -> list[type[BaseModel]]:
    """The models that may stand at a location; a union's tag, which is its `type`, chooses."""
    models = [model]
    for step in location:
        below = [
            part
            for owner in models
            if (field := owner.model_fields.get(str(step)))
            for part in _models_in(field.annotation)
        ]
        tagged = [
            owner
            for owner in models
            if (field := owner.model_fields.get("type")) and step in get_args(field.annotation)
        ]
        models = below or tagged or models
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
