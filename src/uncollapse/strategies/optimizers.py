"""The optimiser that a recipe names."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from uncollapse.config import TrainingConfig
from uncollapse.embedding import gradient_values
from uncollapse.strategies.lazy_adam import LazyAdam
from uncollapse.strategies.row_sgd import RowSGD

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
        return RowSGD(learning, config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    return LazyAdam(
        learning,
        config.learning_rate,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def step_scaled(optimizer: Optimizer, factor: float) -> None:
    """One step of an optimiser of `build_optimizer`, against its gradients times ``factor``.

    The fused kernels scale as they go: gradients are not passed over once more for it.
    """
    if factor == 1:
        optimizer.step()
    elif optimizer.defaults["fused"]:
        device = optimizer.param_groups[0]["params"][0].device
        # what a gradient scaler would leave there, by which the kernels divide
        scale = torch.tensor(1 / factor, dtype=torch.float32, device=device)
        optimizer.grad_scale = scale  # type: ignore[attr-defined]
        try:
            optimizer.step()
        finally:
            optimizer.grad_scale = None  # type: ignore[attr-defined]
    else:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    gradient_values(parameter).mul_(factor)
        optimizer.step()
