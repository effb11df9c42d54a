"""The program in a completion."""

import re

_FENCE = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)(?:^```|\Z)", re.MULTILINE | re.DOTALL)


def extract_solution(completion: str) -> str:
    """The program in a completion.

    Its last fenced block of Python if it has any, else its last fenced block without a language,
    else all of it. A block that was cut off ends with the text.
    """
    blocks = _FENCE.findall(completion)
    python = [code for language, code in blocks if language.lower() in ("python", "python3", "py")]
    bare = [code for language, code in blocks if not language]
    code: str = [completion, *bare, *python][-1]
    return code.rstrip() + "\n"
