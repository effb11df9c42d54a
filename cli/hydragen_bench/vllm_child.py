"""Measures vLLM, in a process of its own: `python vllm_child.py JOB OUT`.

Imports nothing of ours, so that any Python that has vLLM can run it. JOB is a JSON object:

    model     directory of the weights
    points    [{"rows": samples of the prompt, "tokens": new ones a sample, "prompt": ids}, ...]

OUT gets a line of JSON for the engine, {"version", "cascade"}, then one for each point,
{"seconds": of all tokens, "prefill_s": of the first token alone}. The prefix is in vLLM's cache
in both, as it is for us once the prompt has been computed.
"""

import importlib
import json
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

_WARM = 8  # tokens of the run before the timed ones


def engine_options() -> dict[str, Any]:
    """Names and defaults of what this vLLM's engine can be told."""
    options = fields(importlib.import_module("vllm.engine.arg_utils").EngineArgs)
    return {option.name: option.default for option in options}


def has_cascade() -> bool:
    """Whether this vLLM still has cascade attention: where it was removed, nothing is the default.

    Some versions without it warn of the option, later ones do not know it.
    """
    return isinstance(engine_options().get("disable_cascade_attn"), bool)


def build(job: dict[str, Any], cascade: bool) -> Any:
    """vLLM with prefix caching and, where it exists, cascade attention; else its own defaults.

    Its graphs are captured for the batches that are measured: by default they end at 512 rows.
    """
    longest = 1 + max(len(point["prompt"]) + max(point["tokens"], _WARM) for point in job["points"])
    rows = {point["rows"] for point in job["points"]}
    options: dict[str, Any] = {"disable_cascade_attn": False} if cascade else {}
    if "cudagraph_capture_sizes" in engine_options():
        options["cudagraph_capture_sizes"] = sorted(rows)
    return importlib.import_module("vllm").LLM(
        model=job["model"],
        dtype="bfloat16",
        skip_tokenizer_init=True,
        generation_config="vllm",  # not the model's own settings
        enable_prefix_caching=True,
        max_model_len=longest,
        max_num_seqs=max(rows),
        **options,
    )


def draw(llm: Any, point: dict[str, Any], tokens: int) -> float:
    """Seconds of `rows` samples of so many tokens each.

    All samples are queued before the first step, where vLLM can: its engine would otherwise begin
    with those that have arrived, in batches of its own.
    """
    settings = importlib.import_module("vllm").SamplingParams(
        n=point["rows"], temperature=1.0, max_tokens=tokens, ignore_eos=True, detokenize=False
    )
    prompts = [{"prompt_token_ids": point["prompt"]}]
    start = time.perf_counter()
    if hasattr(llm, "wait_for_completion"):
        llm.sleep(level=0)
        llm.enqueue(prompts, settings, use_tqdm=False)
        llm.wake_up(tags=["scheduling"])
        (result,) = llm.wait_for_completion(use_tqdm=False)
    else:
        (result,) = llm.generate(prompts, settings, use_tqdm=False)
    spent = time.perf_counter() - start
    drawn = [len(output.token_ids) for output in result.outputs]
    assert drawn == [tokens] * point["rows"], f"expected {tokens} tokens of each sample: {drawn}"
    return spent


def main(job_path: str, out_path: str) -> None:
    """Runs a job; every line of the answer is there as soon as it is known."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    cascade = has_cascade()
    with Path(out_path).open("w", encoding="utf-8") as out:

        def answer(**line: Any) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()

        llm = build(job, cascade)
        answer(version=importlib.import_module("vllm").__version__, cascade=cascade)
        for point in job["points"]:
            draw(llm, point, _WARM)  # the prefix into the cache, and whatever vLLM does once
            prefill_s = draw(llm, point, 1)
            answer(seconds=draw(llm, point, point["tokens"] + 1), prefill_s=prefill_s)


if __name__ == "__main__":
    main(*sys.argv[1:])
