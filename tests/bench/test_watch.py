"""How idle a device is, by what its driver's tool says."""

import os
import time
from pathlib import Path

import pytest

from hydragen_bench.watch import DeviceWatch


def test_the_watch_averages_what_the_driver_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho ' 30'; echo '[N/A]'; echo 20; exec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with DeviceWatch() as watch:
        end = time.monotonic() + 10
        while len(watch._readings) < 2 and time.monotonic() < end:
            time.sleep(0.01)
    assert watch.idle(time.time() - 30, 40) == pytest.approx(0.75)
    assert watch.idle(time.time() - 300, 40) is None


def test_without_the_drivers_tool_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with DeviceWatch() as watch:
        assert watch.idle(time.time() - 30, 40) is None
