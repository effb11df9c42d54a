"""Places of a batch's fields in its tensors, as kernels name them."""

import triton.language as tl

from hydragen_kernels.batch_state import Control, RowState

TOKENS = tl.constexpr(RowState._fields.index("tokens"))
POSITIONS = tl.constexpr(RowState._fields.index("positions"))
LENGTHS = tl.constexpr(RowState._fields.index("lengths"))
DRAWN = tl.constexpr(RowState._fields.index("drawn"))
STOPS = tl.constexpr(RowState._fields.index("stops"))
CONTEXTS = tl.constexpr(RowState._fields.index("contexts"))
PROBLEMS = tl.constexpr(RowState._fields.index("problems"))

BEGUN = tl.constexpr(Control._fields.index("begun"))
ROWS = tl.constexpr(Control._fields.index("rows"))
STUCK = tl.constexpr(Control._fields.index("stuck"))
TAKEN = tl.constexpr(Control._fields.index("taken"))
GIVEN = tl.constexpr(Control._fields.index("given"))
COMPUTED = tl.constexpr(Control._fields.index("computed"))
