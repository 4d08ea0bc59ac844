"""Matrix products with weights in any form."""

from cupola.kernels.matmul.api import dot as dot
from cupola.kernels.matmul.api import dot_experts as dot_experts
from cupola.kernels.matmul.api import dots as dots
from cupola.kernels.matmul.cpu import activations_for as activations_for
from cupola.kernels.matmul.cpu import is_for as is_for
from cupola.kernels.matmul.form import Adapted as Adapted
from cupola.kernels.matmul.form import Grouped as Grouped
from cupola.kernels.matmul.form import Int8 as Int8
from cupola.kernels.matmul.form import LowRank as LowRank
from cupola.kernels.matmul.form import Turned as Turned
from cupola.kernels.matmul.form import Weight as Weight
from cupola.kernels.matmul.form import joined as joined
from cupola.kernels.matmul.form import reshape as reshape
from cupola.kernels.matmul.packed import Activations as Activations
from cupola.kernels.matmul.packed import Packed as Packed
from cupola.kernels.matmul.packed import PackedGroups as PackedGroups
from cupola.kernels.matmul.packed import group_of as group_of
from cupola.kernels.matmul.packed import pack_groups as pack_groups
