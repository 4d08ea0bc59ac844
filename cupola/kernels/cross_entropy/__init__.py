"""Cross-entropy over a vocabulary, from logits or fused with the product that makes them."""

from cupola.kernels.cross_entropy.api import cross_entropy as cross_entropy
from cupola.kernels.cross_entropy.api import linear_cross_entropy as linear_cross_entropy
from cupola.kernels.cross_entropy.api import linear_log_probs as linear_log_probs
from cupola.kernels.cross_entropy.api import linear_losses as linear_losses
from cupola.kernels.cross_entropy.objective import PLAIN as PLAIN
from cupola.kernels.cross_entropy.objective import Losses as Losses
from cupola.kernels.cross_entropy.objective import Objective as Objective
