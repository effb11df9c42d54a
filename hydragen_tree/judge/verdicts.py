"""What the judge says of one program."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from hydragen_tree.judge.sandbox.request import Outcome
from hydragen_tree.problem.types import ProgramStatus

Status = Literal[ProgramStatus, "IE"]
STATUSES: tuple[Status, ...] = get_args(Status)  # in the order of tables
EXCERPT = 400  # characters of output that a verdict carries


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge's word on one program.

    Args:
        status: AC accepted; WA wrong answer; TLE, MLE, OLE too much time, memory, output; RE run
            time error; CE not accepted by compiler or interpreter; IE the judge's own fault.
        failed_test: index of the test that decided, in the problem's order; None for AC, CE.
        time_s: processor time of the slowest test that was run.
        memory_bytes: the most resident memory of any test that was run.
        exit_status: of the test that decided, unless a signal ended it.
        signal: that signal.
        stdout_excerpt: the start of its output.
        stderr_excerpt: the end of its error output.
        message: the reason for people.
        cached: it was judged before, now or in an earlier run.
        rerun: a time near the limit was measured again with nothing else running.
    """

    status: Status
    failed_test: int | None = None
    time_s: float = 0.0
    memory_bytes: int = 0
    exit_status: int | None = None
    signal: int | None = None
    stdout_excerpt: str = ""
    stderr_excerpt: str = ""
    message: str = ""
    cached: bool = False
    rerun: bool = False

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Verdict | None":
        """The verdict in a line of a verdicts file; None where the line holds none."""
        if record.get("verdict") not in STATUSES:
            return None
        known = {field.name: record[field.name] for field in fields(cls) if field.name in record}
        return cls(**{**known, "status": record["verdict"]})

    @property
    def accepted(self) -> bool:
        """Whether the program is right."""
        return self.status == "AC"

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON types, `status` under the name `verdict`."""
        fields = asdict(self)
        return {"verdict": fields.pop("status"), **fields}


def verdict_of(outcome: Outcome, status: Status, message: str, *, test: int | None) -> Verdict:
    """A verdict with the figures and excerpts of one run.

    Args:
        outcome: the run.
        status: what is to be said of it.
        message: the reason.
        test: the test's index.
    """
    return Verdict(
        status=status,
        failed_test=None if status in ("AC", "CE") else test,
        time_s=round(outcome.cpu_s, 6),
        memory_bytes=outcome.memory_bytes,
        exit_status=outcome.exit_status,
        signal=outcome.signal,
        stdout_excerpt=_text(outcome.stdout[:EXCERPT]),
        stderr_excerpt=_text(outcome.stderr[-EXCERPT:]),
        message=message,
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
