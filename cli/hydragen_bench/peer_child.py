"""Measures transformers or llama.cpp, in a process of its own: `python peer_child.py JOB OUT`.

Imports nothing of ours, so that any Python that has the peer can run it. JOB is a JSON object:

    engine    "transformers" or "llama.cpp"
    model     directory of the weights; for llama.cpp a GGUF file
    dtype     of the weights, for transformers
    device    for transformers
    threads   for either
    started   time.time() when this process was called
    runs      as `run_child.py` has them, and "eos": ids
    repeats   how often each run is run

OUT gets a line of JSON for the engine, {"version", "cascade", "imported_s", "loaded_s"}, then one
for each run and repeat, see `measure`.
"""

import ctypes
import importlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_MOST_SEQUENCES = 256  # llama.cpp has no more
_BATCH_TOKENS = 2048
_PIECE_BYTES = 256


class Drawn(NamedTuple):
    """One sample: how many tokens it took, its text, and what ended it (`stop` or `length`)."""

    n_tokens: int
    text: str
    end: str


class Transformers:
    """`generate`, all samples of a prompt at once."""

    package = "transformers"

    def __init__(self, job: dict[str, Any]) -> None:
        self._torch = importlib.import_module("torch")
        library = importlib.import_module("transformers")
        library.utils.logging.disable_progress_bar()
        if job["device"] == "cpu":
            self._torch.set_num_threads(job["threads"])
        dtype = getattr(self._torch, job["dtype"])
        model = library.AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype)
        self._model = model.eval().to(job["device"])
        self._tokenizer = library.AutoTokenizer.from_pretrained(job["model"])

    def draw(self, prompt: list[int], run: dict[str, Any]) -> Iterator[Drawn]:
        """The samples of one prompt."""
        ids = self._torch.tensor([prompt], device=self._model.device)
        ends, draws = set(run["eos"]), run["temperature"] > 0
        if not draws:  # generate gives several samples of a prompt only where it draws
            ids = ids.repeat(run["n"], 1)
        self._torch.manual_seed(run["seed"])
        with self._torch.inference_mode():
            found = self._model.generate(
                ids,
                attention_mask=self._torch.ones_like(ids),
                do_sample=draws,
                temperature=run["temperature"] if draws else None,
                top_p=run["top_p"] if draws else None,
                top_k=0 if draws else None,
                num_return_sequences=run["n"] if draws else 1,
                max_new_tokens=run["max_tokens"],
                eos_token_id=run["eos"] or None,
                pad_token_id=(run["eos"] or [0])[0],
                stop_strings=run["stop"] or None,
                tokenizer=self._tokenizer,
            )
        for tokens in found[:, len(prompt) :].tolist():
            yield self._cut(tokens, run, ends)

    def _cut(self, tokens: list[int], run: dict[str, Any], ends: set[int]) -> Drawn:
        """A row up to where its sample ended: behind that it is filled up."""
        end = next((i for i, token in enumerate(tokens) if token in ends), None)
        text = self._tokenizer.decode(tokens[:end])
        if any(stop in text for stop in run["stop"]):
            return Drawn(len(tokens) if end is None else end, text, "stop")
        if end is None:
            return Drawn(len(tokens), text, "length")
        return Drawn(end + 1, text, "stop")


class _Sequence:
    """A sample that llama.cpp is drawing."""

    def __init__(self, place: int, sampler: Any) -> None:
        self.place, self.sampler = place, sampler
        self.n_tokens, self.last, self.row = 0, 0, 0
        self.text = b""


class LlamaCpp:
    """A batch of up to 256 sequences in one cache, which all samples of a prompt begin from."""

    package = "llama_cpp"

    def __init__(self, job: dict[str, Any]) -> None:
        self._library = library = importlib.import_module("llama_cpp")
        library.llama_backend_init()
        options = library.llama_model_default_params()
        options.n_gpu_layers = 0
        model = library.llama_model_load_from_file(job["model"].encode(), options)
        assert model, f"llama.cpp cannot load {job['model']}"
        self._vocabulary = library.llama_model_get_vocab(model)
        sequences = min(max(run["n"] for run in job["runs"]), _MOST_SEQUENCES)
        own = max(run["max_tokens"] for run in job["runs"])
        longest = max(len(prompt["token_ids"]) for run in job["runs"] for prompt in run["prompts"])
        settings = library.llama_context_default_params()
        settings.n_ctx = longest + sequences * own
        settings.n_batch = settings.n_ubatch = _BATCH_TOKENS
        settings.n_seq_max, settings.kv_unified = sequences, True
        settings.n_threads = settings.n_threads_batch = job["threads"]
        self._context = library.llama_init_from_model(model, settings)
        assert self._context, "llama.cpp made no context"
        self._memory = library.llama_get_memory(self._context)
        self._batch = library.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self._piece = ctypes.create_string_buffer(_PIECE_BYTES)
        self._sequences = sequences

    def draw(self, prompt: list[int], run: dict[str, Any]) -> Iterator[Drawn]:
        """The samples of one prompt."""
        for first in range(0, run["n"], self._sequences):
            yield from self._draw_batch(prompt, run, range(first, run["n"])[: self._sequences])

    def _draw_batch(
        self, prompt: list[int], run: dict[str, Any], samples: range
    ) -> Iterator[Drawn]:
        library = self._library
        library.llama_memory_clear(self._memory, True)
        for first in range(0, len(prompt), _BATCH_TOKENS):
            part = prompt[first : first + _BATCH_TOKENS]
            self._decode([(token, first + i, 0) for i, token in enumerate(part)], all_rows=False)
        live = []
        for place, sample in enumerate(samples):
            if place:
                library.llama_memory_seq_cp(self._memory, 0, place, -1, -1)
            live.append(_Sequence(place, self._sampler(run, sample)))
            live[-1].row = -1  # the prompt's last token
        while live:
            going = []
            for one in live:
                drawn = self._advance(one, run)
                if drawn is None:
                    going.append(one)
                    continue
                library.llama_memory_seq_rm(self._memory, one.place, -1, -1)
                library.llama_sampler_free(one.sampler)
                yield drawn
            for row, one in enumerate(going):
                one.row = row
            live = going
            if live:
                rows = [(one.last, len(prompt) + one.n_tokens - 1, one.place) for one in live]
                self._decode(rows, all_rows=True)

    def _advance(self, one: _Sequence, run: dict[str, Any]) -> Drawn | None:
        """Draws one token; the sample if that ended it."""
        library = self._library
        one.last = library.llama_sampler_sample(one.sampler, self._context, one.row)
        one.n_tokens += 1
        if one.last in run["eos"]:
            return Drawn(one.n_tokens, one.text.decode(errors="replace"), "stop")
        size = library.llama_token_to_piece(
            self._vocabulary, one.last, self._piece, _PIECE_BYTES, 0, False
        )
        one.text += self._piece.raw[: max(size, 0)]
        recent = one.text[-_PIECE_BYTES:]
        if any(stop.encode() in recent for stop in run["stop"]):
            return Drawn(one.n_tokens, one.text.decode(errors="replace"), "stop")
        if one.n_tokens == run["max_tokens"]:
            return Drawn(one.n_tokens, one.text.decode(errors="replace"), "length")
        return None

    def _sampler(self, run: dict[str, Any], sample: int) -> Any:
        library = self._library
        chain = library.llama_sampler_chain_init(library.llama_sampler_chain_default_params())
        steps = [library.llama_sampler_init_greedy()]
        if run["temperature"] > 0:
            steps = [
                library.llama_sampler_init_temp(run["temperature"]),
                library.llama_sampler_init_top_p(run["top_p"], 1),
                library.llama_sampler_init_dist(run["seed"] + sample),
            ]
        for step in steps:
            library.llama_sampler_chain_add(chain, step)
        return chain

    def _decode(self, rows: list[tuple[int, int, int]], *, all_rows: bool) -> None:
        """Tokens at positions of sequences; logits of all of them, or of the last."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, place) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, place
            batch.logits[i] = all_rows or i == len(rows) - 1
        code = self._library.llama_decode(self._context, batch)
        assert code == 0, f"llama_decode failed with {code}"


ENGINES: dict[str, type[Transformers] | type[LlamaCpp]] = {
    "transformers": Transformers,
    "llama.cpp": LlamaCpp,
}


def measure(engine: Transformers | LlamaCpp, run: dict[str, Any], out_path: Path) -> dict[str, Any]:
    """One problem set, from token ids to its last line in a file.

    Args:
        engine: its weights are loaded.
        run: an entry of the job's `runs`.
        out_path: for the samples.

    Returns:
        `began` (`time.time()`), `seconds`, `cpu_s` (of all threads, user and system),
        `samples_total`, `tokens_sampled`, `ends` (samples by what ended them).
    """
    ends: Counter[str] = Counter()
    tokens = 0
    began, start, start_cpu = time.time(), time.perf_counter(), time.process_time()
    with out_path.open("w", encoding="utf-8") as out:
        for prompt in run["prompts"]:
            for index, sample in enumerate(engine.draw(prompt["token_ids"], run)):
                tokens += sample.n_tokens
                ends[sample.end] += 1
                line = {"task_id": prompt["task_id"], "sample_index": index}
                out.write(json.dumps({**line, "completion": sample.text}) + "\n")
    return {
        "began": began,
        "seconds": time.perf_counter() - start,
        "cpu_s": time.process_time() - start_cpu,
        "samples_total": ends.total(),
        "tokens_sampled": tokens,
        "ends": dict(ends),
    }


def main(job_path: str, out_path: str) -> None:
    """Runs a job; every line of the answer is there as soon as it is known."""
    job = json.loads(Path(job_path).read_text(encoding="utf-8"))
    kind = ENGINES[job["engine"]]
    library = importlib.import_module(kind.package)
    imported_s = time.time() - job["started"]
    with Path(out_path).open("w", encoding="utf-8") as out:

        def answer(**line: Any) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()

        engine = kind(job)
        loaded_s = time.time() - job["started"]
        answer(version=library.__version__, cascade=False, imported_s=imported_s, loaded_s=loaded_s)
        for run in job["runs"]:
            for _ in range(job["repeats"]):
                answer(**measure(engine, run, Path(out_path).with_name("samples.jsonl")))


if __name__ == "__main__":
    main(*sys.argv[1:])
