"""Losses of a policy over its own answers: GRPO and its descendants, and PPO's clipped objective."""

from cupola.kernels.policy.losses import DAPO as DAPO
from cupola.kernels.policy.losses import DR_GRPO as DR_GRPO
from cupola.kernels.policy.losses import GRPO as GRPO
from cupola.kernels.policy.losses import PPO as PPO
from cupola.kernels.policy.losses import Average as Average
from cupola.kernels.policy.losses import Clipped as Clipped
from cupola.kernels.policy.losses import Scale as Scale
from cupola.kernels.policy.losses import group_advantages as group_advantages
from cupola.kernels.policy.losses import linear_policy_loss as linear_policy_loss
