"""Normalization: RMSNorm and LayerNorm."""

from cupola.kernels.norm.api import layer_norm as layer_norm
from cupola.kernels.norm.api import rms_norm as rms_norm
