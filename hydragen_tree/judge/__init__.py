"""The judge: runs programs in a sandbox against a problem's tests, and says what they are worth.

judge.py              what others use: a program, or a stream of them, to verdicts
stream.py             a stream through the workers: duplicates, old verdicts, what is in flight
worker_pool.py        the workers' threads, and problems made ready for them
worker.py             one program, test by test: where a verdict is decided
limits.py             the limits of a run, and what is wrong with how it ended
code_tests.py         tests that are code: apart from the program where plain values pass, else
                      beside it, and what that gives up; shared_objects.py decides which
comparison.py         outputs and values against what is expected
checker_programs.py   checkers that are programs, interactors included
languages.py          how a program of each language is compiled and run
store.py              what was judged before
verdicts.py           the verdict; verdict_file.py writes them
grading.py            a stream of samples through the judge; problem_index.py finds their problems
self_check.py         whether a problem judges its own programs rightly
sandbox/              levels.py (what is offered), isolation.py and probes.py (what is really in
                      force), box.py (a container), request.py (what it is told), execution.py and
                      streams.py (a program that runs, and its pipes), interaction.py (two of
                      them), cgroup.py, interpreter.py, guest/ (what runs inside)
"""

from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.sandbox.isolation import Isolation, probe
from hydragen_tree.judge.sandbox.probes import Attempt
from hydragen_tree.judge.verdicts import Status, Verdict

__all__ = ["Attempt", "Isolation", "Judge", "Status", "Verdict", "probe"]
