"""Two programs that talk to each other: one that is judged, and its interactor or test code."""

import os
from dataclasses import replace

from hydragen_tree.judge.sandbox.box import Box, BoxError
from hydragen_tree.judge.sandbox.execution import Execution, communicate
from hydragen_tree.judge.sandbox.relay import Relay
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
        in_order: neither sees the other's death before that is on record, so that a death that
            follows from the other's never looks like the earlier.

    Returns:
        The program's outcome and the partner's.

    Raises:
        BoxError: a sandbox failed.
    """
    box.ensure()
    partner_box.ensure()
    outward, homeward = _Way(relayed=in_order), _Way(relayed=in_order)
    try:
        program_run = box.begin(program, homeward.read, outward.write)
    except BoxError:
        _close(outward.read, homeward.write, *outward.between, *homeward.between)
        raise
    try:
        partner_run = partner_box.begin(partner, outward.read, homeward.write)
    except BoxError:
        box.close()
        program_run.streams.close()
        _close(*outward.between, *homeward.between)
        raise
    relays = []
    if in_order:
        relays = [
            _relay(outward, program_run, partner_run, breaks=True),
            _relay(homeward, partner_run, program_run, breaks=False),
        ]
    communicate(program_run, partner_run, relays=relays)
    try:
        outcome = box.end(program, program_run)
    finally:
        partner_outcome = partner_box.end(partner, partner_run)
    if relays:
        talked_at = max(relay.moved_at for relay in relays)
        outcome = replace(outcome, talked_at=talked_at, hung_up_at=relays[0].hung_up_at)
    return outcome, partner_outcome


class _Way:
    """A pipe from one program to the other, or two of them with a relay's ends between.

    Args:
        relayed: there are two.

    Attributes:
        write: the descriptor that the one writes to.
        read: the descriptor that the other reads from.
        between: the ends that a relay reads from and writes to; empty without one.
    """

    def __init__(self, *, relayed: bool) -> None:
        self.read, self.write = os.pipe()
        self.between: tuple[int, ...] = ()
        if relayed:
            source = self.read
            self.read, target = os.pipe()
            self.between = (source, target)


def _relay(way: _Way, writer: Execution, reader: Execution, *, breaks: bool) -> Relay:
    source, target = way.between
    return Relay(source, target, writer, reader, breaks=breaks)


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)
