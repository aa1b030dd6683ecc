"""Pieces of a model that for a while do not learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(parameters: Iterable[nn.Parameter], modules: Iterable[nn.Module]) -> Iterator[None]:
    """No gradient for ``parameters``; no dropout and no new statistics in ``modules``.

    Gradients still flow through them to what they read. Afterwards all is as it was.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        Those that stay as they are.
    modules : iterable of nn.Module
        Those that compute as in evaluation, with all that they are made of.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    parts = [part for module in modules for part in module.modules()]
    modes = [part.training for part in parts]
    for parameter in learning:
        parameter.requires_grad_(False)
    for part in parts:
        part.training = False
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode
