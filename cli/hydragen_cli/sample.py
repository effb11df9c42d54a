"""`hydragen sample`, `hydragen-sample`: problems in, samples out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
