"""Losses over preferred and rejected answers, from log-probabilities or fused with the linear head."""

from cupola.kernels.preference.answers import Answers as Answers
from cupola.kernels.preference.answers import linear_answers as linear_answers
from cupola.kernels.preference.losses import CPO as CPO
from cupola.kernels.preference.losses import DPO as DPO
from cupola.kernels.preference.losses import IPO as IPO
from cupola.kernels.preference.losses import KTO as KTO
from cupola.kernels.preference.losses import ORPO as ORPO
from cupola.kernels.preference.losses import Form as Form
from cupola.kernels.preference.losses import SimPO as SimPO
