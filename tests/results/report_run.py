"""A run whose programs are known, one of them hostile to a page of HTML."""

import json
from pathlib import Path
from typing import Any

HOSTILE = "print('</script><script>document.title = \"broken\"</script><!-- \u2028 \ud800')"
PROGRAMS: dict[str, list[tuple[str, str]]] = {
    "half": [
        ("n = int(input())\nprint(n)\n", "AC"),
        ("n = int(input())\nprint(n + 1)\n", "WA"),
        ("n = int(input())\nprint(n)\n", "AC"),
        ("number = input()\nprint(number)\n", "AC"),
        (HOSTILE + "\n", "WA"),
    ],
    "never <b>": [("raise SystemExit\n", "RE")] * 5,
    "always": [(f"print({i})\n", "AC") for i in range(5)],
}
FIGURES = {
    "samples_done": 15,
    "tokens_sampled": 150,
    "rows_computed": 90,
    "prompt_tokens": 40,
    "prompt_tokens_unshared": 400,
    "prefilled_tokens": 44,
    "kv_bytes_peak": 1 << 21,
    "elapsed_s": 3.0,
    "attention": "native",
}
MANIFEST: dict[str, Any] = {
    "format": "hydragen-samples/1",
    "n": 5,
    "model": {"name": "tiny <i>", "dtype": "float32", "device": "cpu"},
    "settings": {"temperature": 0.8, "seed": 7, "stop": ["<end>"]},
    "tasks": {
        task_id: {"prompts": ["x"], "sha256": None, "path": f"{number}.yaml"}
        for number, task_id in enumerate(PROGRAMS)
    },
    "ends": {"eos": {"0": "<|end|>"}, "stop_tokens": {}, "stop": [], "template_stop": ["\n```"]},
    "sessions": [
        {
            "started": "2026-11-29T06:34:22+00:00",
            "ended": "2026-11-29T06:34:25+00:00",
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "figures": FIGURES,
        }
    ],
    "result": None,
}


def write_run(folder: Path, *, judged: bool = True, manifest: bool = True) -> Path:
    """Writes the files of the run; returns its samples file."""
    samples, verdicts = [], []
    for task_id, programs in PROGRAMS.items():
        for index, (program, status) in enumerate(programs):
            line = {
                "task_id": task_id,
                "sample_index": index,
                "prompt_variant": 0,
                "completion": program.rstrip(),
                "solution": program,
                "finish_reason": "stop",
                "n_tokens": 10,
                "logprob": -2.5,
            }
            samples.append(line)
            said = {"failed_test": None, "message": ""}
            if status != "AC":
                said = {"failed_test": 1, "message": "token 1: expected '<5>', got '6'"}
            verdicts.append(
                {**line, "verdict": status, "time_s": 0.01, "difficulty": "easy", **said}
            )
    folder.mkdir(exist_ok=True)
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in samples))
    if judged:
        text = "".join(json.dumps(line) + "\n" for line in verdicts)
        (folder / "verdicts.jsonl").write_text(text)
    if manifest:
        (folder / "samples.jsonl.manifest.json").write_text(json.dumps(MANIFEST))
    return path
