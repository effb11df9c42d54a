"""What the author of an answer only thought, and did not say."""

import re

from hydragen_tree.sample.markdown import open_fence
from hydragen_tree.sample.python_syntax import compiles

_THOUGHT = r"(?:think|thinking|thought|reasoning)"
_OPEN_THOUGHT = re.compile(rf"^[ \t]*[<\[]{_THOUGHT}[>\]]", re.IGNORECASE | re.MULTILINE)
_END_OF_THOUGHT = re.compile(
    rf"^[ \t]*[<\[]/{_THOUGHT}[>\]]|[<\[]/{_THOUGHT}[>\]][ \t]*$", re.IGNORECASE | re.MULTILINE
)
_ANY_TAG = re.compile(rf"[<\[]/?{_THOUGHT}[>\]]", re.IGNORECASE)
_ANY_END = re.compile(rf"[<\[]/{_THOUGHT}[>\]]", re.IGNORECASE)
_THOUGHTS = 64  # that are looked at: an answer of more repeats itself
_BEGINS_IN_THOUGHT = re.compile(rf"\A\s*[<\[]{_THOUGHT}[>\]]", re.IGNORECASE)
# gpt-oss writes into channels; of the tokens that part them nothing is left but their names.
_CHANNELS = re.compile(r"\Aanalysis(.*?)assistantfinal(.*)\Z", re.DOTALL)
_FINAL_CHANNEL = re.compile(r"\Afinal(?=```|~~~)")
_OPENS_CHANNEL = re.compile(r"<\|start\|>assistant\s*\Z")
_ENDS_IN_THOUGHT = re.compile(rf"[<\[]{_THOUGHT}[>\]]\s*\Z", re.IGNORECASE)


def is_thought_tag(text: str, *, ends: bool) -> bool:
    """Whether a text is a tag that ends a thought, or one that begins it, and nothing else."""
    tag = _ANY_TAG.fullmatch(text)
    return tag is not None and ends == text.startswith(("</", "[/"))


def ends_in_thought(prompt: str) -> bool:
    """Whether what continues a prompt is a thought."""
    return _ENDS_IN_THOUGHT.search(prompt) is not None


def split_reasoning(text: str, prompt: str | None) -> tuple[str | None, str]:
    """What was thought before an answer, and the answer; a thought that never ends leaves none.

    Args:
        text: what was drawn.
        prompt: the text that it continues; None where only its tokens are known.

    Returns:
        The thought, None where there is none, and the rest of the text, both without blank lines at
        their edges; a text that does not begin with a thought is left as it is.
    """
    if channels := _CHANNELS.match(text):
        return _parts(*channels.groups())
    if _OPENS_CHANNEL.search(prompt or ""):
        if text.startswith("analysis"):
            return _parts(text.removeprefix("analysis"), "")
        return None, text.removeprefix("final")
    begun = _BEGINS_IN_THOUGHT.match(text)
    if begun:
        ended = _ANY_END.search(text, begun.end())
    elif prompt is None or ends_in_thought(prompt):
        ended = _END_OF_THOUGHT.search(text)
    else:
        return None, text
    first = begun.end() if begun else 0
    if ended:
        return _parts(text[first : ended.start()], text[ended.end() :])
    is_thought = begun is not None or prompt is not None
    return _parts(text[first:], "") if is_thought else (None, text)


def _parts(thought: str, answer: str) -> tuple[str | None, str]:
    return thought.strip("\n") or None, answer.lstrip("\n")


def without_thoughts(text: str, *, begins_in_thought: bool) -> str:
    """A text without what its author only thought; a thought that never ends leaves nothing.

    Args:
        text: an answer.
        begins_in_thought: its prompt has opened a thought.
    """
    if begins_in_thought:
        return _after_thought(text) or ""
    if channels := _CHANNELS.match(text):
        return channels[2].lstrip("\n")
    text = _FINAL_CHANNEL.sub("", text)
    if _ANY_TAG.search(text) is None or compiles(text):
        return text  # a program, whatever it writes
    at, is_data = 0, False
    for _ in range(_THOUGHTS):
        began = _OPEN_THOUGHT.search(text, at)
        if began is None:
            break
        at = began.start()
        if open_fence(text[:at]) is not None:  # it stands in a block of code
            at, is_data = began.end(), True
            continue
        ended = _ANY_END.search(text, began.end())
        text = text[:at] + (text[ended.end() :].lstrip("\n") if ended else "")
    # A chat's template may have begun the thought.
    after = None if is_data else _after_thought(text)
    return text if after is None else after


def _after_thought(text: str) -> str | None:
    ended = _END_OF_THOUGHT.search(text)
    return text[ended.end() :].lstrip("\n") if ended else None
