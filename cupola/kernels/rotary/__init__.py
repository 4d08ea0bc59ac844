"""Rotary position embedding."""

from cupola.kernels.rotary.api import rotate as rotate
from cupola.kernels.rotary.pairing import Pairing as Pairing
