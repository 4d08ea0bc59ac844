"""Divergences between a student's and a teacher's distributions, fused with the products that make their logits."""

from cupola.kernels.divergence.api import linear_divergence as linear_divergence
from cupola.kernels.divergence.measure import Kind as Kind
from cupola.kernels.divergence.measure import Measure as Measure
