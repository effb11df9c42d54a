"""Reading LaTeX source: commands, arguments and environments."""

import re

VERBATIM = ("verbatim", "verbatim*", "lstlisting", "Verbatim", "minted", "comment")
_COMMAND = re.compile(r"\\(?:[A-Za-z]+\*?|.|\n)", re.DOTALL)


class Scanner:
    """A position in LaTeX source that moves forward."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.pos = 0

    @property
    def done(self) -> bool:
        """Whether everything was read."""
        return self.pos >= len(self.source)

    def peek(self) -> str:
        """The next character, or nothing at the end."""
        return self.source[self.pos : self.pos + 1]

    def take(self, text: str) -> bool:
        """Move past `text` if it comes next."""
        found = self.source.startswith(text, self.pos)
        self.pos += len(text) * found
        return found

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Move past what `pattern` matches here."""
        found = pattern.match(self.source, self.pos)
        if found:
            self.pos = found.end()
        return found

    def until(self, text: str) -> str:
        """What comes before the next `text`, moving past both; to the end if there is none."""
        end = self.source.find(text, self.pos)
        end = len(self.source) if end < 0 else end
        found, self.pos = self.source[self.pos : end], end + len(text)
        return found

    def skip_space(self) -> None:
        """Move past white space."""
        while self.peek().isspace():
            self.pos += 1

    def command(self) -> str:
        """The command that starts here, without its backslash; white space after a word goes."""
        found = self.match(_COMMAND)
        if found is None:  # a lone backslash at the very end
            self.pos = len(self.source)
            return ""
        name = found.group()[1:]
        if name[0].isalpha():
            self.match(_SPACE_AFTER_WORD)
        return name

    def argument(self) -> str:
        """A command's next argument: the inside of a group, or a single token."""
        self.skip_space()
        if self.peek() == "{":
            return self._group("{", "}")
        if self.peek() == "\\":
            return "\\" + self.command()
        self.pos += 1
        return self.source[self.pos - 1 : self.pos]

    def optional(self) -> str | None:
        """The inside of `[...]` if that comes next."""
        start = self.pos
        self.skip_space()
        if self.peek() == "[":
            return self._group("[", "]")
        self.pos = start
        return None

    def environment_body(self, name: str) -> str:
        """The source up to the `\\end` that matches an already read `\\begin`."""
        start, depth = self.pos, 1
        for edge in re.finditer(r"\\(begin|end)\{" + re.escape(name) + r"\}", self.source[start:]):
            depth += 1 if edge.group(1) == "begin" else -1
            if depth == 0:
                self.pos = start + edge.end()
                return self.source[start : start + edge.start()]
        self.pos = len(self.source)
        return self.source[start:]

    def _group(self, opening: str, closing: str) -> str:
        """The inside of a balanced group that starts here; braces count in square brackets too."""
        start, depth = self.pos + 1, 0
        position = self.pos
        while position < len(self.source):
            char = self.source[position]
            if char == "\\":
                position += 1
            elif char in ("{", opening):
                depth += 1
            elif char in ("}", closing):
                depth -= 1
                if depth == 0:
                    break
            position += 1
        self.pos = position + 1
        return self.source[start:position]


_SPACE_AFTER_WORD = re.compile(r"[ \t]*\n?[ \t]*(?!\n)|[ \t]+")
