"""Measures vLLM, in a process of its own: `python vllm_child.py JOB OUT`.

Imports nothing of ours, so that any Python that has vLLM can run it. JOB is a JSON object:

    model     directory of the weights
    made_up   {"std": of matrices, "embeddings": likewise}: there are no weights, draw some so;
              unsaid: there are
    started   time.time() when this process was called
    points    of `hydragen bench decode`:
              [{"rows": samples of the prompt, "tokens": new ones a sample, "prompt": ids}, ...]
    runs      or else those of `hydragen bench run`: as `run_child.py` has them, and "eos": ids
    repeats   how often each run is run
    cascade   whether to ask for cascade attention
    tensor_parallel  devices that have the model together; one if unsaid
    batch_invariant  not for this script: the environment that it is called with says so

OUT gets a line of JSON for the engine, {"version", "cascade", "imported_s", "loaded_s"}, then one
for each point, {"seconds": of all tokens, "prefill_s": of the first token alone}, or for each run
and repeat, see `draw_set`. The prefix of a point is in vLLM's cache in both, as it is for us once
the prompt has been computed; runs begin with an empty cache the first time.
"""

import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

_WARM = 8  # tokens of the run before the timed ones
_ROWS = 1024
_CAPTURED = [1, 2, 4, *range(8, 257, 8), *range(272, 513, 16), *range(576, _ROWS + 1, 64)]


def engine_options() -> dict[str, Any]:
    """Names and defaults of what this vLLM's engine can be told."""
    options = fields(importlib.import_module("vllm.engine.arg_utils").EngineArgs)
    return {option.name: option.default for option in options}


def has_cascade() -> bool:
    """Whether this vLLM still has cascade attention: where it was removed, nothing is the default.

    Some versions without it warn of the option, later ones do not know it.
    """
    return isinstance(engine_options().get("disable_cascade_attn"), bool)


def build(
    job: dict[str, Any], longest: int, rows: int, captured: list[int], cascade: bool, **more: Any
) -> Any:
    """vLLM with prefix caching and, where it is asked for, cascade attention; else its defaults.

    Args:
        job: names the model.
        longest: tokens of a sequence at the most.
        rows: of the batch at the most.
        captured: numbers of rows that its graphs are captured for: by default they end at 512.
        cascade: turn on cascade attention.
        more: options of the engine.
    """
    if cascade:
        more["disable_cascade_attn"] = False
    if job.get("made_up"):
        more["load_format"] = "dummy"
    if "cudagraph_capture_sizes" in engine_options():
        more["cudagraph_capture_sizes"] = captured
    if (ranks := job.get("tensor_parallel", 1)) > 1:
        # FlashInfer's sums, fused with norms, use NVLink's multicast, which we leave off too
        passes = {"fuse_allreduce_rms": False, "enable_sp": False, "fuse_gemm_comms": False}
        more |= {"tensor_parallel_size": ranks, "compilation_config": {"pass_config": passes}}
    llm = importlib.import_module("vllm").LLM(
        model=job["model"],
        dtype="bfloat16",
        generation_config="vllm",  # not the model's own settings
        enable_prefix_caching=True,
        max_model_len=longest,
        max_num_seqs=rows,
        **more,
    )
    if made_up := job.get("made_up"):
        llm.apply_model(drawn(**made_up))
    return llm


def drawn(std: float, embeddings: float) -> Callable[[Any], None]:
    """What draws a model's weights where they are, the same on each rank, matrices normally.

    vLLM's own made-up numbers are so small that rounding alone would say which experts a token
    goes to. Norms multiply by one, those of Gemma's kind by two: speed does not depend on it.

    Args:
        std: standard deviation of matrices.
        embeddings: likewise.
    """

    def draw_weights(model: Any) -> None:
        torch = importlib.import_module("torch")
        torch.manual_seed(0)
        with torch.inference_mode():
            for name, weight in model.named_parameters():
                if weight.ndim > 1:
                    weight.normal_(0.0, embeddings if "embed" in name else std)
                elif name.endswith("norm.weight"):
                    weight.fill_(1.0)

    return draw_weights


def build_for_points(job: dict[str, Any], cascade: bool) -> Any:
    """For whole batches: graphs for the batches that are measured, and no texts."""
    longest = 1 + max(len(point["prompt"]) + max(point["tokens"], _WARM) for point in job["points"])
    rows = sorted({point["rows"] for point in job["points"]})
    return build(job, longest, max(rows), rows, cascade, skip_tokenizer_init=True)


def build_for_runs(job: dict[str, Any], cascade: bool) -> Any:
    """For problem sets: graphs as vLLM spaces them, up to as many rows as we have by default."""
    longest = 1 + max(
        len(prompt["token_ids"]) + run["max_tokens"]
        for run in job["runs"]
        for prompt in run["prompts"]
    )
    return build(job, longest, _ROWS, _CAPTURED, cascade, seed=job["runs"][0]["seed"])


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


def draw_set(llm: Any, run: dict[str, Any], out_path: Path) -> dict[str, Any]:
    """One problem set, from token ids to its last line in a file.

    Random numbers are the engine's: a seed of each request's own would slow it down.

    Args:
        llm: the engine.
        run: an entry of the job's `runs`.
        out_path: for the samples.

    Returns:
        `began` (`time.time()`), `seconds`, `samples_total`, `tokens_sampled`, `ends` (samples by
        what ended them).
    """
    settings = importlib.import_module("vllm").SamplingParams(
        n=run["n"],
        temperature=run["temperature"],
        top_p=run["top_p"],
        max_tokens=run["max_tokens"],
        stop=run["stop"] or None,
        stop_token_ids=run["eos"] or None,
        ignore_eos=not run["eos"],
    )
    prompts = [{"prompt_token_ids": prompt["token_ids"]} for prompt in run["prompts"]]
    ends: Counter[str] = Counter()
    tokens = 0
    began, start = time.time(), time.perf_counter()
    results = llm.generate(prompts, settings, use_tqdm=False)
    with out_path.open("w", encoding="utf-8") as out:
        for prompt, result in zip(run["prompts"], results, strict=True):
            for index, sample in enumerate(result.outputs):
                tokens += len(sample.token_ids)
                ends[str(sample.finish_reason)] += 1
                line = {"task_id": prompt["task_id"], "sample_index": index}
                out.write(json.dumps({**line, "completion": sample.text}) + "\n")
    return {
        "began": began,
        "seconds": time.perf_counter() - start,
        "samples_total": ends.total(),
        "tokens_sampled": tokens,
        "ends": dict(ends),
    }


def main(job_path: str, out_path: str) -> None:
    """Runs a job; every line of the answer is there as soon as it is known."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    vllm = importlib.import_module("vllm")
    imported_s = time.time() - job["started"]
    cascade = job["cascade"] and has_cascade()
    with Path(out_path).open("w", encoding="utf-8") as out:

        def answer(**line: Any) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()

        llm = build_for_points(job, cascade) if "points" in job else build_for_runs(job, cascade)
        loaded_s = time.time() - job["started"]
        answer(version=vllm.__version__, cascade=cascade, imported_s=imported_s, loaded_s=loaded_s)
        for point in job.get("points", []):
            draw(llm, point, _WARM)  # the prefix into the cache, and whatever vLLM does once
            prefill_s = draw(llm, point, 1)
            answer(seconds=draw(llm, point, point["tokens"] + 1), prefill_s=prefill_s)
        for run in job.get("runs", []):
            for _ in range(job["repeats"]):
                answer(**draw_set(llm, run, Path(out_path).with_name("samples.jsonl")))


if __name__ == "__main__":
    main(*sys.argv[1:])
