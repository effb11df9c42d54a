"""Two programs that talk to each other: one that is judged, and its interactor or test code."""

import contextlib
import os

from hydragen_tree.judge.sandbox.box import Box, BoxError
from hydragen_tree.judge.sandbox.request import Outcome, Request
from hydragen_tree.judge.sandbox.running import Running, attend


def converse(
    box: Box, program: Request, partner_box: Box, partner: Request, *, in_order: bool = False
) -> tuple[Outcome, Outcome]:
    """Run a program and its partner, each reading what the other writes.

    Args:
        box: where the program runs.
        program: what is judged.
        partner_box: where its partner runs.
        partner: its interactor, or the test code.
        in_order: neither sees that the other's pipes are closed before the other's end is on
            record, so that a death that follows from the other's never looks like the earlier.

    Returns:
        The program's outcome and the partner's.

    Raises:
        BoxError: a sandbox failed.
    """
    box.ensure()
    partner_box.ensure()
    from_program, to_partner = os.pipe()
    from_partner, to_program = os.pipe()
    with contextlib.ExitStack() as of_program, contextlib.ExitStack() as of_partner:
        if in_order:
            _hold(of_program, to_partner, from_partner)
            _hold(of_partner, to_program, from_program)
        try:
            judged = box.begin(program, from_partner, to_partner)
        except BoxError:
            _close(from_program, to_program)
            raise
        try:
            asked = partner_box.begin(partner, from_program, to_program)
        except BoxError:
            box.close()
            judged.streams.close()
            raise

        def let_go(told: Running) -> None:
            (of_program if told is judged else of_partner).close()

        attend(judged, asked, told=let_go)
    try:
        outcome = box.end(program, judged)
    finally:
        said = partner_box.end(partner, asked)
    return outcome, said


def _hold(held: contextlib.ExitStack, *ends: int) -> None:
    """Keep ends of pipes open for as long as the stack is."""
    for end in ends:
        held.callback(os.close, os.dup(end))


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)
