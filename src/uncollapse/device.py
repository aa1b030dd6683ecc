"""Which device a name means here."""

from __future__ import annotations

import torch

from uncollapse.errors import UserError


def find_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` into a device that is here.

    ``auto`` is the first of cuda, mps and cpu that there is.

    Raises
    ------
    UserError
        For an unknown name, or a device that this machine lacks.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdecimal()):
        raise UserError(f"unknown device {name!r}; known: auto, cpu, cuda, cuda:N, mps")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r} is not there: {torch.cuda.device_count()} GPUs found")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not there")
    return torch.device(name)
