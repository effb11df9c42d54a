"""Two programs that talk to each other: one that is judged, and its interactor or test code."""

import contextlib
import os
import threading

from hydragen_tree.judge.box import Box, BoxError
from hydragen_tree.judge.request import Outcome, Request


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
    ended: list[Outcome | BoxError] = []
    with contextlib.ExitStack() as of_program, contextlib.ExitStack() as of_partner:
        if in_order:
            _hold(of_program, to_partner, from_partner)
            _hold(of_partner, to_program, from_program)

        def accompany() -> None:
            try:
                ended.append(partner_box.run(partner, from_program, to_program))
            except BoxError as error:
                ended.append(error)
            finally:
                of_partner.close()

        thread = threading.Thread(target=accompany)
        thread.start()
        try:
            outcome = box.run(program, from_partner, to_partner)
        finally:
            of_program.close()
            thread.join()
    [asked] = ended
    if isinstance(asked, BoxError):
        raise asked
    return outcome, asked


def _hold(held: contextlib.ExitStack, *ends: int) -> None:
    """Keep ends of pipes open for as long as the stack is."""
    for end in ends:
        held.callback(os.close, os.dup(end))
