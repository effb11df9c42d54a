"""How busy the GPU was, seen from outside: the same for any engine, and at no cost to it."""

import os
import shutil
import subprocess
import threading
import time

_INTERVAL_MS = 100


class DeviceWatch:
    """Asks the driver, through nvidia-smi, in which share of the time a kernel was running.

    The driver averages over a sixth of a second to a second; a shorter run has no figure. Without
    nvidia-smi there are none.
    """

    def __init__(self) -> None:
        self._readings: list[tuple[float, float]] = []
        self._process: subprocess.Popen[str] | None = None

    def idle(self, began: float, seconds: float) -> float | None:
        """The share of a time without a kernel; None if nothing was read.

        Args:
            began: when it began, as `time.time()` counts.
            seconds: how long it took.
        """
        # A reading is of the time before it: the first ones speak of what came earlier.
        found = [busy for at, busy in self._readings if began + 1.0 < at < began + seconds]
        return 1.0 - sum(found) / len(found) if found else None

    def __enter__(self) -> "DeviceWatch":
        if (program := shutil.which("nvidia-smi")) is not None:
            card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
            asked = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            self._process = subprocess.Popen(
                [program, f"--id={card}", *asked, f"--loop-ms={_INTERVAL_MS}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
            self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._reader.join()

    def _read(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if line.strip().isdecimal():  # some virtual cards answer "[N/A]"
                    self._readings.append((time.time(), int(line) / 100))
