"""A run as other tools keep theirs: inspect's log, and the samples that lm-eval logs."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.passk.summary import ProblemSummary
from hydragen_tree.results.judged_sample import JudgedSample
from hydragen_tree.results.overview import Overview
from hydragen_tree.results.results import Results

_HALVES = re.compile("[\ud800-\udfff]")
_SCORER = "hydragen-eval"
_FIRST_STATED = ("temperature", "top_p", "max_tokens", "seed")


def export_log(results: Results, name: str) -> Iterator[str]:
    """The text of another tool's file, in pieces that can be written as they come.

    Args:
        results: a run, judged or not.
        name: a key of `LOGS`.

    Raises:
        InputError: the run cannot be read.
    """
    return LOGS[name](results)


def name_of_log(results: Results, name: str) -> str:
    """What a run's log is called, so that its tool finds it among others.

    Args:
        results: a run.
        name: a key of `LOGS`.
    """
    time = re.sub("[:+]", "-", _started(results))
    if name == "inspect":
        return f"{time}_hydragen_{_digest(_model(results) + time)[:12]}.json"
    return f"samples_hydragen_{time}.jsonl"


def check_name(path: Path | None, name: str) -> None:
    """Makes sure that a tool reads its log under the name that it is going to have.

    Raises:
        InputError: it does not.
    """
    if path is not None and name == "inspect" and path.suffix == ".eval":
        raise InputError(
            "inspect's .eval is another layout; name a file that ends in .json, or a directory",
            setting="output",
            value=path,
        )


def _inspect(results: Results) -> Iterator[str]:
    """A log as `inspect_ai.log.read_eval_log` reads it and `inspect view` shows it: an epoch a
    sample, scored C or I. Its samples come last, one by one."""
    overview = Overview.of(results.samples())
    head = _json(_inspect_head(results, overview))
    yield head.removesuffix("}") + ', "samples": ['
    separator = "\n"
    for judged in results.samples():
        yield separator + _json(_inspect_sample(results, judged))
        separator = ",\n"
    yield "\n]}\n"


def _inspect_head(results: Results, overview: Overview) -> dict[str, Any]:
    manifest = results.manifest
    settings = dict(manifest.settings) if manifest else {}
    sessions = manifest.sessions if manifest else ()
    started = _started(results)
    ended = str(sessions[-1].get("ended", "")) if sessions else ""
    tokens = sum(task.tokens for task in overview.tasks)
    ids = [task.task_id for task in overview.tasks]
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "run_id": _digest(f"{results.files.name.resolve()} {started}")[:22],
            "task_id": _digest("\n".join(ids))[:22],
            "created": started,
            "task": "hydragen",
            "dataset": {"name": results.files.name.stem, "samples": len(ids), "sample_ids": ids},
            "model": _model(results),
            "model_generate_config": {k: settings[k] for k in _FIRST_STATED if k in settings},
            "config": {"epochs": max((task.samples for task in overview.tasks), default=0)},
            "packages": dict(sessions[-1].get("versions", {})) if sessions else {},
            "metadata": {"settings": settings, "model": dict(manifest.model) if manifest else {}},
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": overview.samples,
            "completed_samples": overview.samples,
            "scores": _inspect_scores(overview),
        },
        "stats": {
            "started_at": started,
            "completed_at": ended,
            "model_usage": {_model(results): {"output_tokens": tokens, "total_tokens": tokens}},
        },
    }


def _inspect_scores(overview: Overview) -> list[dict[str, Any]]:
    if overview.summary is None:
        return []
    estimates = overview.summary.overall.estimates
    values = {f"pass@{e.k}": e.value for e in estimates}
    values = {"accuracy": overview.accepted / overview.judged, **values}
    metrics = {name: {"name": name, "value": value} for name, value in values.items()}
    return [{"name": _SCORER, "scorer": _SCORER, "params": {}, "metrics": metrics}]


def _inspect_sample(results: Results, judged: JudgedSample) -> dict[str, Any]:
    line, verdict = judged.line, judged.verdict
    given, content = _given(results, judged), _inspect_content(judged)
    cut = line.record.get("finish_reason") == "length"
    message = {"role": "assistant", "content": content, "source": "generate"}
    output: dict[str, Any] = {
        "model": _model(results),
        "choices": [{"message": message, "stop_reason": "max_tokens" if cut else "stop"}],
    }
    if isinstance(tokens := line.record.get("n_tokens"), int):
        output["usage"] = {"output_tokens": tokens, "total_tokens": tokens}
    known = ("prompt_variant", "finish_reason", "logprob", "sampled_logprob", "seed")
    found: dict[str, Any] = {
        "id": line.task_id,
        "epoch": judged.index + 1,
        "input": given,
        "target": "",
        "messages": [{"role": "user", "content": given}, message],
        "output": output,
        "metadata": {key: line.record[key] for key in known if key in line.record},
    }
    if verdict is not None and verdict.status != "IE":
        where = "" if verdict.failed_test is None else f" on test {verdict.failed_test + 1}"
        reason = f": {verdict.message}" if verdict.message else ""
        found["scores"] = {
            _SCORER: {
                "value": "C" if verdict.accepted else "I",
                "answer": judged.program,
                "explanation": f"{verdict.status}{where}{reason}",
                "metadata": asdict(verdict),
            }
        }
    return found


def _inspect_content(judged: JudgedSample) -> str | list[dict[str, str]]:
    """The answer, after what the model thought if that was kept."""
    text, thought = _text(judged), judged.line.record.get("reasoning")
    if not isinstance(thought, str):
        return text
    return [{"type": "reasoning", "reasoning": thought}, {"type": "text", "text": text}]


def _lm_eval(results: Results) -> Iterator[str]:
    """Lines as lm-eval's `--log_samples` writes them: one a problem, with all that was drawn and,
    as what its filter made of that, the programs."""
    overview = Overview.of(results.samples())
    summary = overview.summary
    curves = {p.task_id: p for p in summary.problems} if summary else {}
    drawn: dict[str, list[JudgedSample]] = {}
    for judged in results.samples():
        drawn.setdefault(judged.line.task_id, []).append(judged)
    for number, (task_id, samples) in enumerate(drawn.items()):
        samples.sort(key=lambda judged: judged.index)
        line = _lm_eval_line(results, number, samples, curves.get(task_id))
        yield _json(line) + "\n"


def _lm_eval_line(
    results: Results, number: int, samples: list[JudgedSample], curve: ProblemSummary | None
) -> dict[str, Any]:
    given = _given(results, samples[0])
    doc = {"task_id": samples[0].line.task_id, "prompt": given}
    asked = dict(results.manifest.settings) if results.manifest else {}
    values = {f"pass@{e.k}": e.value for e in curve.curve.estimates} if curve else {}
    return {
        "doc_id": number,
        "doc": doc,
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": given, "arg_1": asked}},
        "resps": [[_text(judged) for judged in samples]],
        "filtered_resps": [[judged.program for judged in samples]],
        "filter": "program",
        "metrics": list(values),
        "doc_hash": _digest(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _digest(given),
        "target_hash": _digest(""),
        **values,
        "verdicts": [judged.status for judged in samples],
    }


def _given(results: Results, judged: JudgedSample) -> str:
    """What the problem says, where its file is to be found, or else its name."""
    problem = results.problem(judged.line)
    return judged.line.task_id if isinstance(problem, InputError) else problem.statement


def _text(judged: JudgedSample) -> str:
    """What was drawn; of other tools' samples there may be nothing but the program."""
    completion = judged.line.completion
    return judged.program if completion is None else completion


def _started(results: Results) -> str:
    """When the run was started, or else its file was last written."""
    if results.manifest and results.manifest.sessions:
        return str(results.manifest.sessions[0]["started"])
    written = datetime.fromtimestamp(results.files.name.stat().st_mtime, UTC)
    return written.isoformat(timespec="seconds")


def _model(results: Results) -> str:
    return results.manifest.model_name if results.manifest else "unknown"


def _json(record: Mapping[str, Any]) -> str:
    """Half characters, which a model can draw, are replaced: their readers take none."""
    return _HALVES.sub("\ufffd", json.dumps(record, ensure_ascii=False))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


LOGS: Mapping[str, Callable[[Results], Iterator[str]]] = {"inspect": _inspect, "lm-eval": _lm_eval}
