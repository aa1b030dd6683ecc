"""Networks that make a draw of z: what noise they are fed, and what they make of it."""

from __future__ import annotations

from torch import nn


def noise_network(width: int, hidden_dim: int, outputs: int) -> nn.Sequential:
    """Two hidden layers (tanh): from what is known ``(..., width)`` to the noise's parameters."""
    return nn.Sequential(
        *_hidden_layers(width, hidden_dim, nn.Tanh), nn.Linear(hidden_dim, outputs)
    )


def generator(noise_dim: int, hidden_dim: int, dim: int) -> nn.Sequential:
    """Two hidden layers (ReLU): from noise ``(..., E)`` to z ``(..., D)``."""
    return nn.Sequential(
        *_hidden_layers(noise_dim, hidden_dim, nn.ReLU), nn.Linear(hidden_dim, dim)
    )


def _hidden_layers(width: int, hidden_dim: int, activation: type[nn.Module]) -> list[nn.Module]:
    # where DialogWAE has batch norm: with it z would depend on the rows that happen to stand
    # beside its own, in evaluation on moving averages, and it would be no function of the context
    layers: list[nn.Module] = []
    for inputs in (width, hidden_dim):
        layers += [nn.Linear(inputs, hidden_dim), nn.LayerNorm(hidden_dim), activation()]
    return layers
