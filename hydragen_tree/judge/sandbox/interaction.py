"""Two programs that talk to each other: one that is judged, and its interactor or test code."""

import contextlib
import os

from hydragen_tree.judge.sandbox.box import Box, BoxError
from hydragen_tree.judge.sandbox.execution import Execution, communicate
from hydragen_tree.judge.sandbox.request import Outcome, Request


def interact(
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
            program_run = box.begin(program, from_partner, to_partner)
        except BoxError:
            _close(from_program, to_program)
            raise
        try:
            partner_run = partner_box.begin(partner, from_program, to_program)
        except BoxError:
            box.close()
            program_run.streams.close()
            raise

        def release(ended: Execution) -> None:
            (of_program if ended is program_run else of_partner).close()

        communicate(program_run, partner_run, on_end=release)
    try:
        outcome = box.end(program, program_run)
    finally:
        partner_outcome = partner_box.end(partner, partner_run)
    return outcome, partner_outcome


def _hold(held: contextlib.ExitStack, *ends: int) -> None:
    """Keep ends of pipes open for as long as the stack is."""
    for end in ends:
        held.callback(os.close, os.dup(end))


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)
