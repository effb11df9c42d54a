"""`hydragen bench run`: problem sets end to end, prompts in, lines out, ends and stops on.

Each set goes through `hydragen_tree.run.run()` into a file of samples, in a process of its own, as
often as asked: the first time also compiles and captures what it needs, the last one is what the
table compares. A set is HumanEval's 164 prompts or as many made-up ones of the same lengths, one
prompt with 1,000 samples, or problems behind a root of 2,400 tokens.

With `devices` named, or ranks, processes draw, each on its own device or its own part of the model;
they load in the first run, which shows what a whole command takes.

With a model that is named, samples end as they do. Of an architecture without weights, the head is
made as sure as asked for and its samples as long, see `sharpened.py`.

    tokens/s   tokens drawn over the seconds from the first prompt to the last line
    plan       seconds that the constants of `hydragen plan --devices` give the run, lengths known
    length     tokens of a sample in the mean
    sample     seconds until the first sample is written
    host       share of the steps that the host took one by one
    rows/tok   rows computed for each token drawn: the fewer, the more samples share them
    bits       of a drawn token under the model's own distribution, in the mean
    idle       share of the time in which no kernel ran, see `watch.py`
    tok/cpu    tokens for each second of a core, user and system
    peer       on request: the same weights, token ids, limits and stops in another engine, see
               `peers.py`; random numbers are its own, so lengths are alike in the mean only
"""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from os import pathsep
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from hydragen_bench import sharpened
from hydragen_bench.child import run_child
from hydragen_bench.configs import config_of
from hydragen_bench.gguf_file import gguf_of
from hydragen_bench.peers import KINDS, Peer, run_peer
from hydragen_bench.sets import POINTS, Point, from_real, made_up, read_prompts, to_json
from hydragen_bench.table import line
from hydragen_bench.watch import DeviceWatch
from hydragen_tree.errors import InputError
from hydragen_tree.model.loading import find_model, load_tokenizer
from hydragen_tree.prompt.prompts import Prompt

STOPS = ("\nclass ", "\ndef ", "\n# ", "\nif ", "\nprint")
_SEED = 0
_NAME = 26  # characters of a set's name in the table


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be run.

    Attributes:
        architecture: see `config_of`, on random weights.
        model: a model with weights instead.
        points: names of `POINTS`; empty: all.
        prompts: a file of real prompts, JSON lines; None: made up.
        n: samples of a prompt; None: the set's own number.
        temperatures: each set is run at all of them.
        top_p: of all runs.
        max_tokens: of a sample.
        entropy_bits: of a token, of random weights.
        mean_tokens: of a sample, of random weights; 0: samples have no end.
        repeats: of each run.
        weights: where random weights are kept; None: they are not.
        linear: of linear layers, as `find_model` takes it.
        against: the peer; None: there is none.
        devices: those that draw, a process on each; None: this process draws.
        tensor_parallel: devices that have the model together.
        batch_invariant: in this mode, and the peer in its own.
    """

    architecture: str = "smollm2-135m"
    model: str | None = None
    points: Sequence[str] = ()
    prompts: Path | None = None
    n: int | None = None
    temperatures: Sequence[float] = (0.8, 0.2)
    top_p: float = 0.95
    max_tokens: int = 256
    entropy_bits: float = 2.0
    mean_tokens: float = 48.0
    repeats: int = 2
    weights: Path | None = None
    linear: str = "auto"
    against: Peer | None = None
    devices: str | None = None
    tensor_parallel: int = 1
    batch_invariant: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be run.

        Raises:
            InputError: `setting` names it.
        """
        for name in self.points:
            if name not in POINTS:
                raise InputError(f"expected {', '.join(POINTS)}", setting="points", value=name)
        if self.model is None:
            config_of(self.architecture)
        if self.against is not None and self.devices:
            raise InputError("no peer is spread over devices; leave it out", setting="devices")
        if self.against and self.tensor_parallel > 1 and not KINDS[self.against.name].ranks:
            raise InputError(f"{self.against.name} runs on one device", setting="against")
        if self.batch_invariant and self.against and not KINDS[self.against.name].invariant:
            raise InputError(f"{self.against.name} has no such mode", setting="batch_invariant")
        if self.prompts is not None and self.model is None:
            raise InputError("random weights cannot read: name a --model", setting="prompts")

    def sets(self) -> list[tuple[str, Point]]:
        """Names and sizes of the sets."""
        return [(name, POINTS[name]) for name in self.points or POINTS]


@dataclass(frozen=True, slots=True)
class Figures:
    """One set by one engine; what it does not tell is None.

    Attributes:
        samples: how many.
        tokens: drawn.
        mean_tokens: of a sample.
        first_run_s: seconds of the first time.
        seconds: of the last time, when nothing is compiled any more.
        planned_s: what `hydragen plan` gives that, by its constants and these samples' lengths.
        tokens_s: tokens a second then.
        cpu_s: seconds of cores then; None where other processes draw.
        first_sample_s: seconds until the first sample was written.
        first_token_s: seconds until the first token was known, the first time.
        host_share: of the steps, those that the host took one by one.
        steps: steps in all.
        rows_a_token: rows computed for each token.
        logprob_bits: of a drawn token.
        idle_share: of the time, that without a kernel.
        ends: samples by what ended them.
    """

    samples: int
    tokens: int
    mean_tokens: float
    first_run_s: float
    seconds: float
    planned_s: float | None
    tokens_s: float
    cpu_s: float | None
    first_sample_s: float | None
    first_token_s: float | None
    host_share: float | None
    steps: int | None
    rows_a_token: float | None
    logprob_bits: float | None
    idle_share: float | None
    ends: Mapping[str, int]

    @property
    def tokens_cpu_s(self) -> float | None:
        """Tokens for each second of a core."""
        return self.tokens / self.cpu_s if self.cpu_s else None

    @classmethod
    def of(cls, answers: Sequence[Mapping[str, Any]], watch: DeviceWatch) -> "Figures":
        """Of all repeats of a run."""
        first, last = answers[0], answers[-1]
        tokens, seconds = int(last["tokens_sampled"]), float(last["seconds"])
        rows = last.get("rows_computed")
        steps = last.get("steps_host", 0) + last.get("steps_device", 0)
        return cls(
            last["samples_total"],
            tokens,
            tokens / last["samples_total"],
            first["seconds"],
            seconds,
            last.get("planned_s"),
            tokens / seconds,
            last.get("cpu_s"),
            last.get("first_sample_s"),
            first.get("first_token_s"),
            last["steps_host"] / steps if steps else None,
            steps or None,
            None if rows is None else rows / tokens,
            last.get("logprob_bits"),
            watch.idle(last["began"], seconds),
            last["ends"],
        )


_OURS = ("samples", "length", "first_s", "seconds", "plan", "tokens/s", "tok/cpu", "sample", "host")
_PEERS = ("peer", "ratio", "tok/cpu", "ratio", "length", "idle")
HEADING = f"{'set':{_NAME}s}" + line((*_OURS, "rows/tok", "bits", "idle", *_PEERS), 9)


def _cell(value: float | None, shape: str) -> str:
    return "-" if value is None else format(value, shape)


def describe(name: str, ours: Figures, peer: Figures | None) -> str:
    """A line of the table, under `HEADING`."""
    cells = (
        f"{ours.samples}",
        f"{ours.mean_tokens:.1f}",
        f"{ours.first_run_s:.1f}",
        f"{ours.seconds:.1f}",
        _cell(ours.planned_s, ".1f"),
        f"{ours.tokens_s:.0f}",
        _cell(ours.tokens_cpu_s, ".0f"),
        _cell(ours.first_sample_s, ".2f"),
        _cell(ours.host_share, ".0%"),
        _cell(ours.rows_a_token, ".2f"),
        _cell(ours.logprob_bits, ".2f"),
        _cell(ours.idle_share, ".0%"),
    )
    theirs: tuple[str, ...] = ("-",) * len(_PEERS)
    if peer is not None:
        own, other = ours.tokens_cpu_s, peer.tokens_cpu_s
        theirs = (
            f"{peer.tokens_s:.0f}",
            f"{ours.tokens_s / peer.tokens_s:.2f}",
            _cell(other, ".0f"),
            _cell(own / other if own and other else None, ".2f"),
            f"{peer.mean_tokens:.1f}",
            _cell(peer.idle_share, ".0%"),
        )
    return f"{name:{_NAME}s}{line((*cells, *theirs), 9)}"


def run(asked: Asked) -> dict[str, Any]:
    """Measures, prints a table and returns its figures.

    The table is printed once we have run, and again with the peer beside us once that has.

    Raises:
        InputError: the prompts cannot be read, or there are too few.
        HydragenError: one of the processes failed.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="hydragen-run-")))
        model, head = _model(asked, folder)
        names, job = _job(asked, model)
        watch = stack.enter_context(DeviceWatch())
        python = [sys.executable, "-m", "hydragen_bench.run_child"]
        ours = run_child("run", python, job, folder, {"PYTHONPATH": pathsep.join(sys.path)})
        own = [Figures.of(_repeats(ours, number, asked), watch) for number in range(len(names))]
        start_s = ours[1]["first_token_s"] + ours[0]["loaded_s"]
        _print_start(asked, ours[0], head, start_s)
        engine: dict[str, Any] | None = None
        peers: list[Figures | None] = [None] * len(names)
        _print_table(names, own, peers)
        if asked.against is not None:
            engine, *lines = run_peer(asked.against, _peer_job(asked, job, ours[0], folder), folder)
            peers = [
                Figures.of(_repeats([engine, *lines], number, asked), watch)
                for number in range(len(names))
            ]
            cascade = {True: " with cascade attention", False: "", None: ""}[engine.get("cascade")]
            print(
                f"{asked.against.name} {engine['version']}{cascade}: {engine['loaded_s']:.1f} s "
                "until it takes prompts"
            )
            _print_table(names, own, peers)
    return {
        "device": ours[0].pop("device_name"),
        "asked": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(asked).items()},
        "stop": STOPS,
        "seed": _SEED,
        "head": head,
        "start_s": start_s,
        "ours": ours[0],
        "peer": engine,
        "rows": [
            {"set": name, "ours": asdict(we), "peer": asdict(peer) if peer else None}
            for name, we, peer in zip(names, own, peers, strict=True)
        ],
    }


def _print_start(
    asked: Asked, ours: Mapping[str, Any], head: Mapping[str, float] | None, start_s: float
) -> None:
    """What is run on, and what came before the first token."""
    narrow = "" if asked.linear == "auto" else f" with linear layers in {asked.linear}"
    print(
        f"{asked.model or asked.architecture + ', random weights'}: {ours['dtype']}{narrow} on "
        f"{', '.join(ours['workers']) or ours['device']}, {ours['attention']} attention, "
        f"{ours['rows']} rows"
    )
    if head is not None:
        print(
            f"head: {head['entropy_bits']:.2f} bits a token, an end in "
            f"{head['end_probability']:.2%} of the tokens at temperature "
            f"{sharpened.TEMPERATURE}, top-p {sharpened.TOP_P}"
        )
    print(
        f"start-up: {start_s:.1f} s until the first token, {ours['imported_s']:.1f} of them "
        f"importing and {ours['loaded_s'] - ours['imported_s']:.1f} loading"
    )


def _print_table(
    names: Sequence[str], ours: Sequence[Figures], peers: Sequence[Figures | None]
) -> None:
    print(HEADING)
    for row in zip(names, ours, peers, strict=True):
        print(describe(*row), flush=True)


def _repeats(answers: Sequence[dict[str, Any]], number: int, asked: Asked) -> list[dict[str, Any]]:
    """The lines of one run; the first of all is the engine's."""
    first = 1 + number * asked.repeats
    return list(answers[first : first + asked.repeats])


def _model(asked: Asked, folder: Path) -> tuple[str, dict[str, float] | None]:
    """The model's name or folder, and how its head was made if its weights are random."""
    if asked.model is not None:
        return asked.model, None
    own = asked.architecture, asked.entropy_bits, asked.mean_tokens
    place = sharpened.find_folder(asked.weights or folder, *own)
    if not sharpened.is_made(place):
        # in a process of its own: what it holds of the GPU goes with it
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(sharpened.make_folder, asked.architecture, place, *own[1:]).result()
    return str(place), sharpened.read_figures(place)


def _job(asked: Asked, model: str) -> tuple[list[str], dict[str, Any]]:
    """Names of the runs, and what the processes are told of them."""
    source = find_model(model, device="cpu")
    vocabulary = int(source.config.vocab_size)
    common = {
        "top_p": asked.top_p,
        "max_tokens": asked.max_tokens,
        "stop": STOPS,
        "seed": _SEED,
        "eos": sorted(source.eos_ids),
    }
    real: list[Prompt] | None = None
    if asked.prompts is not None:
        real = read_prompts(asked.prompts, load_tokenizer(source))
    elif asked.model is not None:  # ids beyond its tokenizer's are no tokens
        vocabulary = min(vocabulary, len(load_tokenizer(source)))
    names, runs = [], []
    for name, point in asked.sets():
        prompts = made_up(point, vocabulary) if real is None else from_real(point, real)
        entry = {**common, "prompts": to_json(prompts), "n": asked.n or point.n}
        for temperature in asked.temperatures:
            names.append(f"{name}, T {temperature:g}")
            runs.append({**entry, "temperature": temperature})
    job = {
        "model": model,
        "weights": asked.linear,
        "devices": asked.devices,
        "tensor_parallel": asked.tensor_parallel,
        "batch_invariant": asked.batch_invariant,
        "repeats": asked.repeats,
        "runs": runs,
    }
    return names, job


def _peer_job(
    asked: Asked, job: Mapping[str, Any], ours: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """What the peer is told: the same runs, weights, threads and dtype.

    llama.cpp gets the weights in a file of its own kind, in 8 bits where ours are, else in the
    dtype of the checkpoint.
    """
    assert asked.against is not None
    name, model = asked.against.name, job["model"]
    if name == "llama.cpp":
        source = find_model(model, device="cpu", dtype="float32")
        is_narrow = getattr(source.config, "dtype", None) == torch.bfloat16
        kind = "Q8_0" if asked.linear == "int8" else "BF16" if is_narrow else "F32"
        model = str(gguf_of(source, folder, kind))
    elif model == "tiny":
        model = find_model(model, device="cpu").path
    told = {key: ours[key] for key in ("threads", "dtype", "device")}
    return {**job, **told, "model": model, "engine": name, "cascade": name == "vllm-cascade"}
