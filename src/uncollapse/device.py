"""Which device a name means here, and which seeds it takes."""

from __future__ import annotations

import torch

from uncollapse.errors import UserError

MOST_SEED = 2**63 - 1


def check_seed(seed: int) -> int:
    """Give ``seed`` back if PyTorch takes it.

    Raises
    ------
    UserError
        If it is negative, or has more than 63 bits.
    """
    if seed < 0:
        raise UserError(f"the seed must not be negative, but is {seed}")
    if seed > MOST_SEED:
        raise UserError(f"the seed must be at most {MOST_SEED}, but is {seed}")
    return seed


def find_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` into a device that is here.

    ``auto`` is cuda if there is one, else cpu: Apple's GPUs lack the float64 of the estimators.

    Raises
    ------
    UserError
        For an unknown name, or a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise UserError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:N")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r} is not there: {torch.cuda.device_count()} GPUs found")
    return torch.device(name)
