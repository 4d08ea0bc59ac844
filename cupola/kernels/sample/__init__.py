"""Drawing tokens from logits."""

from cupola.kernels.sample.api import draw as draw
from cupola.kernels.sample.api import log_sum as log_sum
from cupola.kernels.sample.xla import likeliest as likeliest
