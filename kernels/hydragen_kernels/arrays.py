"""The array type that all tables of numbers share."""

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
"""Tokens, pages, lengths, tables of them: any numpy array of int32."""
