"""How torch's threads wait for each other."""

import os


def limit_spinning() -> None:
    """Has torch's threads sleep, where they wait long, instead of keeping a core busy.

    They wait by spinning, for milliseconds. On a core that somebody else uses too, that is time in
    which nobody gets on: a decode step took ten times as long. GNU OpenMP reads its variables once,
    when torch is loaded, so this must come before: the command line calls it as its first act, and
    in Python the first public name that is asked for does. Later it changes nothing. What the
    user's environment says about waiting stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")
