"""Normalization: RMSNorm and LayerNorm, with or without a residual that is added first."""

from cupola.kernels.norm.api import add_layer_norm as add_layer_norm
from cupola.kernels.norm.api import add_rms_norm as add_rms_norm
from cupola.kernels.norm.api import layer_norm as layer_norm
from cupola.kernels.norm.api import rms_norm as rms_norm
from cupola.kernels.norm.casting import Casting as Casting
