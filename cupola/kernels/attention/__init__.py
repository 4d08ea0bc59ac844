"""Attention: each query's mixture of the values whose keys it may see."""

from cupola.kernels.attention.api import attend as attend
from cupola.kernels.attention.mask import CAUSAL as CAUSAL
from cupola.kernels.attention.mask import Mask as Mask
