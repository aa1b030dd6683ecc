"""What the processes of one run tell each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from uncollapse.errors import RunError


def processes() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def any_process(flags: list[bool], device: torch.device) -> list[bool]:
    """Which flags are raised in at least one process; every process must ask."""
    if processes() == 1:
        return flags
    vector = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(vector, op=dist.ReduceOp.MAX)
    return [bool(value) for value in vector.tolist()]


def gather_objects(value: object) -> list:
    """The value of every process, in every process."""
    if processes() == 1:
        return [value]
    gathered: list = [None] * processes()
    dist.all_gather_object(gathered, value)
    return gathered


def on_first_process(action: Callable[[], object]) -> None:
    """Do something in the first process alone, while the others wait; all must ask.

    Raises
    ------
    RunError
        In every process, if the action raised one: none may wait for one that has left.
    """
    failure: str | None = None
    if processes() == 1 or dist.get_rank() == 0:
        try:
            action()
        except RunError as error:
            failure = str(error)
    for message in gather_objects(failure):
        if message is not None:
            raise RunError(message)
