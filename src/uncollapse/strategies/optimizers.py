"""The optimiser that a recipe names."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Optimizer

from uncollapse.config import TrainingConfig
from uncollapse.strategies.lazy_adam import LazyAdam

# the devices for which PyTorch has a fused kernel of both optimisers
FUSED_DEVICES = {"cpu", "cuda", "mps"}


def build_optimizer(config: TrainingConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """An optimiser over those ``parameters`` that learn.

    The fused kernels are the exact algorithms (dense Adam with coupled weight decay; SGD
    without momentum) in one pass over the parameters.
    """
    learning = [p for p in parameters if p.requires_grad]
    fused = {p.device.type for p in learning} <= FUSED_DEVICES
    if config.optimizer == "sgd":
        return SGD(learning, config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    return LazyAdam(
        learning,
        config.learning_rate,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=fused,
    )
