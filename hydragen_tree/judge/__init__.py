"""The judge: runs programs in a sandbox against a problem's tests, and says what they are worth.

sandbox     levels.py (what is offered), box.py (a container and the talk with it), request.py
            (what is said), running.py and streams.py (a program that runs, and its pipes),
            conversation.py (two of them), guest/ (what runs inside), cgroup.py, interpreter.py,
            probe.py and attempts.py
verdicts    examiner.py (one program, test by test), checkers.py, validators.py, languages.py
judge       judge.py (streams of programs), store.py (what was judged before), library.py
            (whose samples they are), verdict_file.py, checkup.py (whether a problem judges rightly)
"""

from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.sandbox.attempts import Attempt
from hydragen_tree.judge.sandbox.probe import Isolation, probe
from hydragen_tree.judge.verdict import Status, Verdict

__all__ = ["Attempt", "Isolation", "Judge", "Status", "Verdict", "probe"]
