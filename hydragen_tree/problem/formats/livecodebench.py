"""LiveCodeBench's problems. Its private tests are pickled; here nothing is ever unpickled.

The payload is base64 of zlib of a pickle of one string, which is JSON. A pickle is a program for a
small machine; to run one from the network is to run a stranger's code. So its instructions are
only listed, and a pickle that is anything but one string is refused by name.
"""

import base64
import binascii
import json
import pickletools
import zlib
from collections.abc import Mapping
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.shared import (
    MEMORY_MIB,
    json_or_value,
    text_checker,
    with_starter,
)

MOST_BYTES = 1 << 30  # of one problem's private tests, unpacked
_STRINGS = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_HARMLESS = ("PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "STOP")
_LEVELS = ("easy", "medium", "hard")


def is_livecodebench(record: Mapping[str, Any]) -> bool:
    """Whether a record is LiveCodeBench's (code generation)."""
    return {"question_content", "public_test_cases", "private_test_cases"} <= record.keys()


def livecodebench_problem(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as a document of ours; tests are stdin and stdout, or calls of a function."""
    name = str(record["question_id"])
    public = json_or_value(record["public_test_cases"]) or []
    cases = [*public, *private_tests(record["private_test_cases"], name)]
    if not cases:
        raise InputError(f"{name}: it has no tests")
    document: dict[str, Any] = {
        "id": name,
        "title": record.get("question_title") or name,
        "statement": with_starter(record["question_content"], record.get("starter_code")),
        "limits": {"time_s": 6, "memory_mib": MEMORY_MIB},
    }
    if record.get("difficulty") in _LEVELS:
        document["difficulty"] = record["difficulty"]
    function = (json_or_value(record.get("metadata")) or {}).get("func_name")
    kinds = {case["testtype"] for case in cases}
    if kinds == {"functional"} and function:
        document["entry_point"] = function
        document["tests"] = [
            {
                "call": [json.loads(line) for line in case["input"].split("\n")],
                "expected": json.loads(case["output"]),
            }
            for case in cases
        ]
    elif kinds == {"stdin"}:
        tests = [{"input": case["input"], "output": case["output"]} for case in cases]
        document |= {"tests": tests, "checker": text_checker(tests, tolerance=1e-6)}
    else:
        raise InputError(f"{name}: test types {', '.join(sorted(kinds))}: expected one kind")
    return document


def private_tests(payload: Any, name: str) -> list[dict[str, Any]]:
    """The private tests, from JSON or from the packed form.

    Args:
        payload: JSON, or base64 of zlib of JSON or of a pickled string of JSON.
        name: the problem's, for messages.

    Raises:
        InputError: it is packed otherwise, or the pickle holds more than a string.
    """
    if not isinstance(payload, str):
        return list(payload)
    try:
        return list(json.loads(payload))
    except ValueError:
        pass
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(payload, validate=True), MOST_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise InputError(f"{name}: private tests: neither JSON nor packed: {error}") from None
    if unpacker.unconsumed_tail:
        raise InputError(f"{name}: private tests: more than {MOST_BYTES >> 20} MiB unpacked")
    if not data.startswith(b"\x80"):  # a pickle's first instruction
        return list(json.loads(data))
    return list(json.loads(pickled_string(data, name)))


def pickled_string(data: bytes, name: str) -> str:
    """The string of a pickle that is one string; its instructions are read, never run.

    Raises:
        InputError: the pickle does anything else.
    """
    found: list[str] = []
    try:
        for instruction, argument, _ in pickletools.genops(data):
            if instruction.name in _STRINGS and not found:
                found.append(str(argument))
            elif instruction.name not in _HARMLESS:
                raise InputError(
                    f"{name}: private tests: a pickle with {instruction.name} is not a plain "
                    "string and is not unpickled; convert the tests to JSON where you trust them"
                )
    except ValueError as error:
        raise InputError(f"{name}: private tests: a damaged pickle: {error}") from None
    if not found:
        raise InputError(f"{name}: private tests: a pickle without a string")
    return found[0]
