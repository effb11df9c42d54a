"""What a problem package promises of its submissions: by folder, by rule, or by the program itself.

A rule of `submissions.yaml` says which verdicts single test cases may have (`permitted`), and that
some case has one of a set (`required`). What is checked is the verdict on the whole: that of the
first case that fails.

Source: the Problem Package Format 2025-09, section Example submissions; DOMjudge's manual on
`@EXPECTED_RESULTS@`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hydragen_tree.problem.formats.kattis_data import mapping_of

# Folders whose name is a promise of one verdict.
STATUS_OF_FOLDER = {
    "accepted": "AC",
    "wrong_answer": "WA",
    "time_limit_exceeded": "TLE",
    "run_time_error": "RE",
    "memory_limit_exceeded": "MLE",
    "output_limit_exceeded": "OLE",
    "compiler_error": "CE",
}
_STATUSES_OF_FOLDER = {
    **{folder: (status,) for folder, status in STATUS_OF_FOLDER.items()},
    "rejected": ("WA", "TLE", "RE"),
    "brute_force": ("TLE", "RE"),
}
# A legacy scoring problem takes a program for accepted that gets some of the points; here, where
# all tests must pass, it may fail some. Partly accepted is one that does.
_STATUSES_OF_SCORED = {
    "accepted": ("AC", "WA", "TLE", "RE"),
    "partially_accepted": ("WA", "TLE", "RE"),
}
_STATUS_OF_RULE = {"AC": "AC", "WA": "WA", "TLE": "TLE", "RTE": "RE"}
_ANY = tuple(_STATUS_OF_RULE.values())
_STATUS_OF_TAG = {
    "CORRECT": "AC", "ACCEPTED": "AC", "WRONG-ANSWER": "WA", "NO-OUTPUT": "WA",
    "TIMELIMIT": "TLE", "TIME-LIMIT-EXCEEDED": "TLE", "RUN-ERROR": "RE", "RUN-TIME-ERROR": "RE",
    "OUTPUT-LIMIT": "OLE", "OUTPUT-LIMIT-EXCEEDED": "OLE", "MEMORY-LIMIT": "MLE",
    "MEMORY-LIMIT-EXCEEDED": "MLE", "COMPILER-ERROR": "CE",
}  # fmt: skip
_TAG = re.compile(r"@EXPECTED_RESULTS@:[ \t]*([\w, \t-]+)")
_NO_RULES = {"language", "entrypoint", "authors", "model_solution", "use_for_time_limit", "message"}


@dataclass(frozen=True, slots=True)
class Expectations:
    """What a package promises of its submissions.

    Args:
        metadata: where the rules are.
        rules: what `submissions.yaml` says.
        scored: whether it is a legacy package that gives points.
    """

    metadata: Path
    rules: Mapping[str, Any]
    scored: bool = False

    def of(self, entry: PurePosixPath, code: str) -> tuple[str, ...] | str:
        """The verdicts that a program may get, the one that says most of it first.

        Args:
            entry: the program's file or directory, relative to `submissions/`.
            code: its source.

        Returns:
            Verdicts; or why it is promised none.

        Raises:
            InputError: a rule is no mapping.
        """
        tags = {tuple(re.findall(r"[\w-]+", tag)) for tag in _TAG.findall(code)}
        if tags:
            return _tagged(tags)
        folder = entry.parts[0]
        rules = [mapping_of(self.metadata, self.rules, key) for key in self._matching(entry)]
        own = mapping_of(self.metadata, self.rules, folder)
        expected = _STATUSES_OF_FOLDER.get(folder)
        if self.scored:
            expected = _STATUSES_OF_SCORED.get(folder, expected)
        if not any(_is_rule(rule) for rule in (own, *rules)):
            return expected or f"{folder} names no single verdict"
        # A rule for a whole folder stands in for what its name promises, key by key.
        default = _rule_of(expected) if expected else {}
        found: set[str] = set(_ANY)
        for rule in ({**default, **own}, *rules):
            if "score" in rule or any(isinstance(value, dict) for value in rule.values()):
                return "submissions.yaml has rules for its groups of tests or its score"
            allowed = _allowed(rule)
            if allowed is None:
                return "submissions.yaml has a rule that is not understood"
            found &= allowed
        if not found or found == set(_ANY):
            return "submissions.yaml leaves it " + ("any verdict" if found else "no verdict")
        return tuple(sorted(found, key=lambda status: (status == "AC", _ANY.index(status))))

    def _matching(self, entry: PurePosixPath) -> list[str]:
        """The rules for a program or a folder above it, but for the one named as its folder."""
        paths = [str(path) for path in (entry, *entry.parents)]
        keys = [key for key in map(str, self.rules) if key != entry.parts[0]]
        return [key for key in keys if any(re.fullmatch(_glob(key), path) for path in paths)]


def _tagged(tags: set[tuple[str, ...]]) -> tuple[str, ...] | str:
    if len(tags) > 1:
        return "several @EXPECTED_RESULTS@ that differ"
    names = [name.replace("_", "-").upper() for name in tags.pop()]
    if unknown := [name for name in names if name not in _STATUS_OF_TAG]:
        return f"@EXPECTED_RESULTS@ of {', '.join(unknown)}"
    statuses = dict.fromkeys(_STATUS_OF_TAG[name] for name in names)
    return tuple(sorted(statuses, key=lambda status: status == "AC"))


def _is_rule(rule: Mapping[str, Any]) -> bool:
    return bool(rule.keys() - _NO_RULES)


def _rule_of(statuses: tuple[str, ...]) -> dict[str, Any]:
    """A folder's promise as a rule for its cases."""
    names = {status: name for name, status in _STATUS_OF_RULE.items()}
    named = [names[status] for status in statuses if status in names]
    return {"permitted": ["AC", *named], "required": named}


def _allowed(rule: Mapping[str, Any]) -> set[str] | None:
    """The verdicts on the whole that a rule leaves open; None for a rule of another kind."""
    permitted, required = (
        rule.get(key, list(_STATUS_OF_RULE)) for key in ("permitted", "required")
    )
    sets = [value if isinstance(value, list) else [value] for value in (permitted, required)]
    if any(name not in _STATUS_OF_RULE for names in sets for name in names):
        return None
    allowed = {_STATUS_OF_RULE[name] for name in sets[0]}
    return allowed if "AC" in sets[1] else allowed - {"AC"}


def _glob(pattern: str) -> str:
    """A glob as a regular expression: `*` within a name, and `{a,b}`."""
    text = re.escape(pattern).replace(r"\*", "[^/]*")
    return re.sub(r"\\\{(.*?)\\\}", lambda m: f"(?:{m.group(1).replace(',', '|')})", text)
