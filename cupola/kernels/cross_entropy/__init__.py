"""Cross-entropy over a vocabulary, from logits or fused with the product that makes them."""

from cupola.kernels.cross_entropy.api import linear_cross_entropy as linear_cross_entropy
from cupola.kernels.cross_entropy.api import linear_log_probs as linear_log_probs
