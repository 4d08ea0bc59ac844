"""Gated activations."""

from cupola.kernels.gated.activation import Activation as Activation
from cupola.kernels.gated.api import gate as gate
