"""The time limit of a package that states none: so many times what its accepted programs need.

Source: the Problem Package Format, legacy (`time_multiplier`) and 2025-09 (`time_multipliers`).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydragen_tree.errors import InputError
from hydragen_tree.problem.formats.kattis_data import is_legacy, mapping_of, read_yaml


@dataclass(frozen=True, slots=True)
class LimitRule:
    """How a package's time limit follows from its accepted programs.

    Args:
        multiplier: of the slowest one's time.
        resolution_s: the limit is a multiple of it.
    """

    multiplier: float
    resolution_s: float = 1.0

    def limit_s(self, slowest_s: float) -> float:
        """The time limit in seconds, for the time of the slowest accepted program."""
        steps = math.ceil(self.multiplier * slowest_s / self.resolution_s)
        return max(1, steps) * self.resolution_s


def limit_rule(source: Path) -> LimitRule:
    """The rule of a package.

    Args:
        source: its `problem.yaml`.

    Raises:
        InputError: the file cannot be read, or a number in it is none.
    """
    metadata = read_yaml(source)
    limits = mapping_of(source, metadata, "limits")
    multiplier: Any = limits.get("time_multiplier", 5 if is_legacy(metadata) else 2)
    multiplier = mapping_of(source, limits, "time_multipliers").get("ac_to_time_limit", multiplier)
    numbers = {"time_multiplier": multiplier, "time_resolution": limits.get("time_resolution", 1)}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise InputError(f"{source}: limits: {key}: {value!r}: expected a number above 0")
    return LimitRule(float(multiplier), float(numbers["time_resolution"]))
