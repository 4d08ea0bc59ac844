"""AdamW over a whole tree, and the norm by which its gradient is clipped."""

from cupola.kernels.adamw.api import adamw as adamw
from cupola.kernels.adamw.api import global_norm as global_norm
from cupola.kernels.adamw.rule import Rule as Rule
