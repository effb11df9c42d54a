"""`hydragen merge`: the files of one run that was drawn in parts become one."""

from pathlib import Path
from typing import Annotated

import typer

from hydragen_cli import arguments
from hydragen_cli.console import count, note
from hydragen_cli.options import config_files
from hydragen_cli.outputs import check_outputs, file_or_stdout, open_output, refuse_existing
from hydragen_tree.errors import first_of
from hydragen_tree.files import is_descriptor

_PARTIAL = 3


def merge(
    samples: Annotated[
        list[Path],
        typer.Argument(
            metavar="SAMPLES...",
            help="Files of one run, such as those of its shards, each with its manifest beside it.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The whole run's file; its manifest is written beside. Default: stdout.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output.")] = False,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Write what there is where samples are missing; hydragen sample --resume draws "
            "the rest.",
        ),
    ] = False,
    quiet: arguments.Quiet = False,
    config: arguments.Config = None,
) -> int:
    """Join the samples of one run that was drawn in parts: by --shard, or by --first and --last.

    A sample that stands in several files is written once. Where samples are missing nothing is
    written, and the exit code is 3, unless --partial is given.
    """
    from hydragen_tree.sample.manifest import manifest_path
    from hydragen_tree.sample.merging import Merging

    path = file_or_stdout(output)
    read = [("the configuration", file) for file in config_files(config)]
    for part in filter(Path.is_file, samples):  # what is no file is refused below
        read.append(("a file of the samples", part))
        read.append(("the manifest of the samples", manifest_path(part)))
    beside = None if path is None or _is_stream(path) else manifest_path(path)
    own = [] if beside is None else [("its own manifest", beside)]
    check_outputs({"output": path}, [*read, *own])
    check_outputs({"output": beside}, read)
    refuse_existing(path, force, beside=beside)
    with Merging(samples) as merging:
        for part in merging.torn:
            note(f"{part}: its last line is torn, and left out", quiet=quiet)
        if merging.doubled:
            note(f"{count(merging.doubled, 'identical double')} left out", quiet=quiet)
        run = f"{count(merging.manifest.n_samples, 'sample')} of "
        run += count(len(merging.manifest.tasks), "problem")
        if merging.n_missing:
            missing = f"{merging.n_missing:,} of {run} missing: {first_of(list(merging.gaps()))}"
            note(
                missing if partial else f"{missing}; --partial writes the rest",
                quiet=partial and quiet,
            )
            if not partial:
                return _PARTIAL
        with open_output(path) as target:
            for line in merging.lines():
                target.write(line)
            if beside is not None:
                beside.unlink(missing_ok=True)  # the samples never stand beside another's manifest
        if beside is not None:
            merging.manifest.write(beside)
    if not merging.n_missing:
        note(f"{run}: complete", quiet=quiet)
    return 0


def _is_stream(path: Path) -> bool:
    """A pipe or a device: it is written as it is, and has no manifest."""
    return is_descriptor(path) or (path.exists() and not path.is_file())
