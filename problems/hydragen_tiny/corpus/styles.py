"""Task -> program, in one of many styles."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from hydragen_tiny.corpus.parts import MAIN_ROLES, Step
from hydragen_tiny.corpus.tasks import Task

ROLE_NAMES = {
    "a": ("a", "nums", "values", "arr", "numbers", "lst"),
    "b": ("b", "other", "bs", "second"),
    "d": ("d", "ds", "extra", "third"),
    "n": ("n", "n", "size", "num_items"),
    "k": ("k", "k", "limit", "param"),
    "h": ("c", "d", "extra", "other_k"),
    "x": ("x", "v", "num", "val"),
    "y": ("y", "w", "nxt"),
    "z": ("z", "item"),
    "s": ("s", "text", "line"),
    "t": ("t", "word", "target"),
    "w": ("words", "parts", "tokens"),
    "u": ("w", "word", "u"),
    "c": ("c", "ch"),
    "p": ("pairs", "items", "pts"),
    "m": ("grid", "matrix", "table"),
    "g": ("grid", "board", "g"),
    "adj": ("adj", "graph", "edges"),
    "q": ("commands", "ops"),
    "r": ("ans", "result", "res", "answer"),
}
ITEMS = {"ints": "$x", "words": "$u", "pairs": "$x, $y"}
MAINS = {"ints": "$a", "words": "$w", "pairs": "$p", "text": "$s"}
EXTRA_ARGUMENTS = ("$n", "$k", "$h", "rows", "cols", "m")


@dataclass(frozen=True, slots=True)
class Style:
    """What the programs of one author have in common.

    Args:
        layout: statements at top level, in main(), or a solve() that returns the answer.
        reading: input(), sys.stdin.readline or all of standard input at once.
        loops: how often this author writes a loop where an expression would do, in [0, 1].
        names: seed of the choice of variable names.
    """

    layout: str
    reading: str
    loops: float
    names: int


@dataclass(frozen=True, slots=True)
class Body:
    """Code between reading and printing: steps, question, and the answer as an expression."""

    steps: str
    core: str
    answer: str


def draw_style(rng: Random) -> Style:
    """A random style."""
    return Style(
        rng.choices(("flat", "main", "solve"), weights=(60, 15, 25))[0],
        rng.choices(("input", "readline", "whole"), weights=(65, 20, 15))[0],
        rng.choice((0.0, 0.2, 0.6)),
        rng.randrange(1_000_000),
    )


def _indent(code: str, by: int = 1) -> str:
    return "\n".join("    " * by + line if line else line for line in code.split("\n"))


def _reading(task: Task, style: Style, rng: Random) -> tuple[str, list[str]]:
    """The code that reads one case, and the lines it needs at the top of the program."""
    simple = task.reads is None and not task.cases
    if style.reading == "whole" and simple and task.source.whole_code:
        return task.source.whole_code, ["import sys"]
    code = rng.choice(task.source.code)
    if task.reads is not None and task.k_follows_n:
        first = "$n, $k" if task.reads_too is None else "$n, $k, $h"
        code = code.replace("$n = int(input())", f"{first} = map(int, input().split())", 1)
    elif task.reads is not None:
        code += "\n$k = int(input())"
    if style.reading == "readline" and task.source.name != "text":
        return code, ["import sys", "input = sys.stdin.readline"]
    return code, []


def _item_step(step: Step, loop: bool, rng: Random) -> str:
    """A filter or a map of items as a loop, a comprehension or a call."""
    main, item = MAINS[step.kind], ITEMS[step.kind]
    kept = f"({item})" if "," in item else item
    new = step.item or kept
    if loop:
        add = f"kept.append({new})"
        inner = f"if {step.test}:\n    {add}" if step.test else add
        return f"kept = []\nfor {item} in {main}:\n{_indent(inner)}\n{main} = kept"
    if "," not in item and rng.random() < 0.15:
        call = f"filter(lambda {item}: {step.test}" if step.test else f"map(lambda {item}: {new}"
        return f"{main} = list({call}, {main}))"
    condition = f" if {step.test}" if step.test else ""
    return f"{main} = [{new} for {item} in {main}{condition}]"


def _bound(code: str, k: str) -> str:
    """The code with its parameter written in: a number, or `$k` where it is read."""
    return code.replace("$k", k)


def _steps(task: Task, style: Style, rng: Random, ks: Sequence[str]) -> str:
    lines, i = [], 0
    while i < len(task.steps):
        step = task.steps[i]
        following = task.steps[i + 1] if i + 1 < len(task.steps) else None
        if step.code:
            lines.append(_bound(rng.choice(step.code), ks[i]))
        elif step.test and following and following.item and rng.random() < 0.5:
            main, item = MAINS[step.kind], ITEMS[step.kind]
            new, test = _bound(following.item, ks[i + 1]), _bound(step.test, ks[i])
            lines.append(f"{main} = [{new} for {item} in {main} if {test}]")
            i += 1
        else:
            lines.append(_bound(_item_step(step, rng.random() < style.loops, rng), ks[i]))
        i += 1
    return "\n".join(lines)


def _folded(task: Task, ks: Sequence[str]) -> str:
    """Steps and question in a single loop over the items."""
    start, update = task.family.fold or ("", "")
    code, depth = "", 1
    for step, k in zip(task.steps, ks, strict=False):
        line = f"if {step.test}:" if step.test else f"{ITEMS[step.kind]} = {step.item}"
        code += "\n" + _indent(_bound(line, k), depth)
        depth += bool(step.test)
    loop = f"for {ITEMS[task.family.kind]} in {MAINS[task.family.kind]}:"
    return f"$r = {start}\n{loop}{code}\n{_indent(update, depth)}"


def _inlines(answer: str, output: str) -> bool:
    """Whether the expression can stand for the result without changing the output's meaning."""
    if output.count("$r") != 1 or 'f"' in output:
        return False
    if output in ("print($r)", "return $r"):
        return True
    tree = ast.parse(answer.replace("$", "_"), mode="eval").body
    return isinstance(tree, ast.Call | ast.Name | ast.List | ast.ListComp | ast.Subscript)


def _question(task: Task, style: Style, rng: Random, ks: Sequence[str]) -> Body:
    """Steps and question."""
    foldable = task.family.fold and not any(step.code for step in task.steps)
    if foldable and task.guard is None and task.steps and rng.random() < style.loops:
        return Body("", _folded(task, ks), "$r")
    steps = _steps(task, style, rng, ks)
    expressions = [code for code in task.family.code if "\n" not in code]
    blocks = [code for code in task.family.code if "\n" in code]
    wants_block = blocks and (not expressions or rng.random() < 0.15 + style.loops / 2)
    core = _bound(rng.choice(blocks if wants_block else expressions), ks[-2])
    return Body(steps, core, "$r") if wants_block else Body(steps, "", core)


def _named(code: str, seed: int) -> str:
    """Roles replaced by names that differ from each other and from all names in the code."""
    taken = set(re.findall(r"(?<![\w$])[a-zA-Z_]\w*", code))
    rng, names = Random(seed), {}
    for role, options in ROLE_NAMES.items():
        drawn = rng.sample(options, len(options))
        if f"${role}" in code:
            free = [name for name in drawn if name not in taken]
            names[role] = free[0] if free else f"{role}_"
            taken.add(names[role])
    return re.sub(r"\$(\w+)", lambda match: names[match[1]], code)


def _hoisted(code: str) -> str:
    """Imports at the top, once each."""
    lines = code.split("\n")
    imports = dict.fromkeys(line.strip() for line in lines if line.strip().startswith("import "))
    return "\n".join([*imports, *(line for line in lines if line.strip() not in imports)])


def _lines(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _answered(body: Body, output: str, direct: bool) -> str:
    """The output statement, with the answer's expression in it or assigned before."""
    if body.answer == "$r":
        return output
    if direct:
        return output.replace("$r", body.answer)
    return f"$r = {body.answer}\n{output}"


def _straight(task: Task, reading: str, body: Body, output: str) -> str:
    """Reading, steps, question and output one after the other."""
    ending = _lines(body.core, output)
    if task.guard is not None:
        nothing = f'if not {MAINS[task.family.kind]}:\n    print("{task.guard}")\nelse:\n'
        ending = nothing + _indent(ending)
    text = _lines(reading, body.steps, ending)
    return f"for _ in range(int(input())):\n{_indent(text)}" if task.cases else text


def _solving(task: Task, reading: str, body: Body, output: str) -> str:
    """A function from what was read to what is printed, and its call."""
    guard = ""
    if task.guard is not None:
        guard = f'if not {MAINS[task.family.kind]}:\n    return "{task.guard}"'
    inner = _lines(body.steps, guard, body.core, output)
    arguments = [f"${role}" for role in MAIN_ROLES[task.family.kind]]
    for extra in EXTRA_ARGUMENTS:
        used = re.compile(rf"(?<![\w$]){re.escape(extra)}\b")
        if extra not in arguments and used.search(inner) and used.search(reading):
            arguments.append(extra)
    call = ", ".join(arguments)
    main = _lines(reading, f"print(solve({call}))")
    if task.cases:
        main = f"for _ in range(int(input())):\n{_indent(main)}"
    return f"def solve({call}):\n{_indent(inner)}\n\n{main}"


def program(task: Task, style: Style, rng: Random) -> str:
    """A program that solves the task.

    Args:
        task: what to solve.
        style: the author's habits.
        rng: all other choices.

    Returns:
        the source text, without a newline at the end.
    """
    names = {task.reads: "$k", task.reads_too: "$h"}
    ks = [names.get(i, str(c)) for i, c in enumerate(task.constants)]
    reading, top = _reading(task, style, rng)
    body = _question(task, style, rng, ks)
    shown = _bound(task.finish.expr, ks[-1])
    if style.layout == "solve":
        direct = _inlines(body.answer, shown) and rng.random() < 0.7
        text = _solving(task, reading, body, _answered(body, f"return {shown}", direct))
    else:
        output = _bound(rng.choice((f"print({task.finish.expr})", *task.finish.prints)), ks[-1])
        direct = _inlines(body.answer, output) and rng.random() < 0.7
        text = _straight(task, reading, body, _answered(body, output, direct))
        if style.layout == "main":
            text = f"def main():\n{_indent(text)}\n\nmain()"
    return _named(_hoisted(_lines(*top, text)), style.names)
