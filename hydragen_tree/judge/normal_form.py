"""Which programs are one and the same, so that one verdict serves them all.

Only what the language itself ignores may be left out: two programs with one normal form must do the
same. For Python that is a carriage return before a line's end, and spaces, tabs and form feeds
behind its last token. Every other white space (a no-break space, a vertical tab, ...) is an error
or part of a string. Of other languages nothing is left out.
"""

import re

_IGNORED = " \t\f"
_LINE_END = re.compile(r"(?<!\r)\r\n")  # a carriage return before it ends a line of its own
# Text in which the end of a line is not the end of what counts: strings that span lines, lines
# that are continued, and the fields of an f-string, which can show their own source.
_SPANS_LINES = re.compile(r"""\"{3}|'{3}|\\|\b(?:[ft]r?|r[ft])["']""", re.IGNORECASE)


def normal_form(code: str, language: str = "python") -> str:
    """A program without the white space that its language ignores.

    Args:
        code: its source.
        language: its name in the table of languages.
    """
    if language != "python":
        return code
    lines = _LINE_END.sub("\n", code)
    if _SPANS_LINES.search(lines):
        end = lines.rstrip(f"{_IGNORED}\n")
        # After a backslash an empty line, or a carriage return, makes a program of what is none.
        return code if end.endswith(("\\", "\\\r")) else end
    return "\n".join(line.rstrip(_IGNORED) for line in lines.split("\n")).rstrip("\n")
