"""A judge whose programs run on all machines of a Ray cluster.

    Stream -> jobs -> threads here, one for each program that is judged at a time
                        -> an actor a machine, which is a judge of its own -> verdict

Doubles, old verdicts and files are the business of this process, as ever. The actors take no
processors of the cluster's account: samples may come from actors that have taken them all, and a
judge that waited for those to end would be waited for by them.
"""

import queue
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydragen_tree.errors import HydragenError, InputError, first_line
from hydragen_tree.judge.judge import Judge
from hydragen_tree.judge.sandbox.interpreter import Interpreter, find_interpreter
from hydragen_tree.judge.sandbox.isolation import Isolation
from hydragen_tree.judge.store import Store
from hydragen_tree.judge.verdicts import Verdict
from hydragen_tree.judge.worker_pool import Job, WorkerPool
from hydragen_tree.problem.types import Problem
from hydragen_tree.spread.ray_cluster import import_ray, join

_ATTEMPTS = 3  # to judge a program, where machines are lost over it
_RESTARTS = 3  # of a machine's actor
_POLL_S = 0.2


class RayJudge(Judge):
    """Judges programs on the machines of a cluster. Use it in a `with` block, or `close` it.

    Every machine has to offer the level of isolation and the Python that this one has; problems
    with checker programs have to lie at the same place on all of them.

    Args:
        address: see `hydragen_tree.spread.ray_cluster.join`.
        sandbox: see `Judge`.
        workers: programs judged at a time on each machine; by default as many as it has processors
            left beside one for each GPU.
        cache_dir: see `Judge`.
        cache: see `Judge`.
        python: see `Judge`.

    Raises:
        InputError: as `Judge`; Ray is not installed, there is no such cluster, or a machine does
            not offer the same.
    """

    def __init__(
        self,
        address: str,
        sandbox: str = "auto",
        workers: int | None = None,
        cache_dir: Path | None = None,
        *,
        cache: bool = True,
        python: str | None = None,
    ) -> None:
        join(address)
        self._python, self._asked = python, workers
        super().__init__(sandbox, workers, cache_dir, cache=cache, python=python)
        self.workers = self._pool.workers

    def _make_pool(self, interpreter: Interpreter, store: Store) -> WorkerPool:
        machines = [
            _Machine(node["NodeID"], self._asked or _processors(node["Resources"]))
            for node in import_ray().nodes()
            if node["Alive"] and node["Resources"].get("CPU")
        ]
        return _RayPool(machines, self.isolation, interpreter, store, self._python)


def _processors(resources: dict[str, float]) -> int:
    return max(1, int(resources["CPU"] - resources.get("GPU", 0)))


class _Machine:
    """A machine of the cluster and its actor, if it has one.

    Args:
        node: Ray's name of it.
        workers: programs judged there at a time.
    """

    def __init__(self, node: str, workers: int) -> None:
        self.node, self.workers = node, workers
        self.actor: Any = None
        self.restarts = _RESTARTS


class _RayPool(WorkerPool):
    """Runs jobs on machines; arguments as for `WorkerPool` and `RayJudge`."""

    def __init__(
        self,
        machines: list[_Machine],
        isolation: Isolation,
        interpreter: Interpreter,
        store: Store,
        python: str | None,
    ) -> None:
        super().__init__(sum(m.workers for m in machines), isolation, interpreter, store)
        self._ray = import_ray()
        self._level, self._version, self._python = isolation.level, interpreter.version, python
        self._machines = machines
        self._machines_lock = threading.Lock()
        self._problems: dict[str, Any] = {}  # by a case's key, where Ray keeps it
        # One entry for each program that can be judged now; None once no machine is left.
        self._free: queue.SimpleQueue[tuple[_Machine, Any] | None] = queue.SimpleQueue()
        try:
            for machine in machines:
                self._start(machine)
        except BaseException as error:
            self.close()
            if isinstance(error, self._ray.exceptions.RayError):
                raise HydragenError(first_line(error)) from error
            raise

    def close(self) -> None:
        """See `WorkerPool.close`; ends the actors, too."""
        super().close()
        for machine in self._machines:
            if machine.actor is not None:
                self._ray.kill(machine.actor)
        self._machines = []

    def _start(self, machine: _Machine) -> None:
        """Starts a machine's actor.

        Raises:
            InputError: it does not offer what it should.
            ray.exceptions.RayError: the machine is gone.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        pinned = NodeAffinitySchedulingStrategy(machine.node, soft=False)
        actor = (
            self._ray.remote(RayJudgeActor)
            .options(num_cpus=0, max_concurrency=machine.workers, scheduling_strategy=pinned)
            .remote(machine.workers)
        )
        offer = self._ray.get(actor.open.remote(self._level, self._python, self._version))
        if offer is not None:
            self._ray.kill(actor)
            raise offer
        machine.actor = actor
        for _ in range(machine.workers):
            self._free.put((machine, actor))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.begin():
                job.done(self._judge_somewhere(job))

    def _judge_somewhere(self, job: Job) -> Verdict:
        why = ""
        for _ in range(_ATTEMPTS):
            slot = self._take_slot()
            if slot is None:
                return Verdict("IE", message="no machine is left to judge on")
            try:
                verdict = self._judge_on(slot[1], job)
            except self._ray.exceptions.RayError as error:
                why = first_line(error)
                self._lost(*slot)
                continue
            self._free.put(slot)
            return verdict
        return Verdict("IE", message=f"its machine was lost {_ATTEMPTS} times: {why}"[:400])

    def _take_slot(self) -> tuple[_Machine, Any] | None:
        """A machine that can judge a program now, and its actor; None if there will be none."""
        while (slot := self._free.get()) is not None:
            if slot[0].actor is slot[1]:  # not lost since it was free
                return slot
        self._free.put(None)  # for the next one
        return None

    def _judge_on(self, actor: Any, job: Job) -> Verdict:
        key = job.case.key
        with self._lock:
            if key not in self._problems:
                self._problems[key] = self._ray.put(job.case.problem)
            kept = self._problems[key]
        answer = actor.judge.remote(key, [kept], job.code, job.language.name)
        while not self._closing.is_set():
            if self._ray.wait([answer], timeout=_POLL_S)[0]:
                verdict: Verdict = self._ray.get(answer)
                return verdict
        return Verdict("IE", message="the judge was closed")

    def _lost(self, machine: _Machine, actor: Any) -> None:
        """Starts a machine's actor again; the first of its programs that notices does it."""
        with self._machines_lock:
            if machine.actor is not actor:
                return
            machine.actor = None
            self._ray.kill(actor)
            while machine.restarts and machine.actor is None and not self._closing.is_set():
                machine.restarts -= 1
                with suppress(self._ray.exceptions.RayError, InputError):
                    self._start(machine)
            if all(each.actor is None for each in self._machines):
                self._free.put(None)


class RayJudgeActor:
    """The judge of one machine.

    Args:
        workers: programs judged at a time.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._problems: dict[str, Problem] = {}

    def open(self, level: str, python: str | None, version: str) -> InputError | None:
        """Starts the judge; answers what this machine lacks.

        Args:
            level: of isolation.
            python: that runs the programs, as the user named it.
            version: that it must have.
        """
        try:
            found = find_interpreter(python)
            if found.version != version:
                theirs, ours = (text.split()[0] for text in (found.version, version))
                return InputError(
                    f"a machine of the cluster judges with Python {theirs}, not {ours}"
                )
            self._judge = Judge(level, self._workers, cache=False, python=python)
        except InputError as error:
            return error
        return None

    def judge(self, key: str, problem: list[Any], code: str, language: str) -> Verdict:
        """Judges one program.

        Args:
            key: of the problem.
            problem: where Ray keeps it; fetched once.
            code: the program's source.
            language: its name in the table of languages.
        """
        if key not in self._problems:
            self._problems[key] = import_ray().get(problem[0])
        try:
            return self._judge.judge(self._problems[key], code, language)
        except InputError as error:
            return Verdict("IE", message=str(error)[:400])
