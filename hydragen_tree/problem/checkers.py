"""How answers are compared: the checkers that a problem file may name."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator


class Part(BaseModel):
    """A part of a problem file: nothing in it is unknown, nothing changes."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class TokensChecker(Part):
    """Answers are compared token by token, white space aside."""

    model_config = ConfigDict(json_schema_extra={"required": ["type"]})

    type: Literal["tokens"] = "tokens"
    case_sensitive: bool = True
    """Whether upper and lower case differ."""
    space_sensitive: bool = False
    """Whether the white space between and around tokens must be equal too."""


class ExactChecker(Part):
    """Answers must be equal to the last byte."""

    type: Literal["exact"]


class FloatChecker(Part):
    """Tokens that are numbers may differ by either tolerance; others must be equal."""

    type: Literal["float"]
    abs_tol: float = Field(default=1e-6, ge=0)
    """Absolute difference allowed."""
    rel_tol: float = Field(default=1e-6, ge=0)
    """Difference allowed, relative to the expected number."""
    case_sensitive: bool = True
    """Whether upper and lower case differ in tokens that are no numbers."""
    space_sensitive: bool = False
    """Whether the white space between and around tokens must be equal too."""


class ProgramChecker(Part):
    """A program decides."""

    type: Literal["program"]
    source: str
    """The program's file, or the directory of its files, relative to the problem file."""
    protocol: Literal["kattis", "polygon", "python"]
    """`python`: `check(input, answer, output)`; `kattis`: exit 42 or 43; `polygon`: testlib's."""
    args: tuple[str, ...] = ()
    """Further arguments for the program."""
    interactive: bool = False
    """The program talks to the solution instead of reading its output."""

    @field_validator("source")
    @classmethod
    def _is_there(cls, source: str, info: ValidationInfo) -> str:
        if info.context and not info.context.exists(source):
            raise ValueError(f"no such file {source!r}, expected a path relative to this file")
        return source


def _checker_of_name(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Checker = Annotated[
    TokensChecker | ExactChecker | FloatChecker | ProgramChecker, Field(discriminator="type")
]
CheckerOrName = Annotated[
    Checker,
    BeforeValidator(
        _checker_of_name, json_schema_input_type=Literal["tokens", "exact", "float"] | Checker
    ),
]
