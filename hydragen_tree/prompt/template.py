"""Prompts: a problem and its few-shot examples as the token ids a model reads.

The plain template, for models that were never taught to chat, is this text for every example in
order and then for the problem, whose code is left open for the model to write:

    ### Problem
    {statement}

    Input:
    {sample input}
    Output:
    {sample output}

    ### Solution
    ```python
    {solution}
    ```
"""

from collections.abc import Sequence

PLAIN_STOP = ("\n```",)


def render_block(statement: str, samples: Sequence[tuple[str, str]], solution: str | None) -> str:
    """One block of the plain template.

    Args:
        statement: the task in prose; surrounding white space is dropped.
        samples: (input, output) of every test that is shown; one trailing newline is dropped.
        solution: the program, or None to leave the code part open.

    Returns:
        The block: without a newline at its end when it is closed, with one when it is open.
    """
    opening = "### Solution\n```python\n"
    code = opening if solution is None else f"{opening}{solution.strip()}\n```"
    return f"### Problem\n{render_task(statement, samples)}\n\n{code}"


def render_task(statement: str, samples: Sequence[tuple[str, str]]) -> str:
    """What is asked, in prose and by its samples; see `render_block`."""
    shown = [
        "\n".join(["Input:", given.removesuffix("\n"), "Output:", expected.removesuffix("\n")])
        for given, expected in samples
    ]
    return "\n\n".join([statement.strip(), *shown])
