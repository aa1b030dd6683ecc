"""The processes of one run: how long they talk to each other, and what they say."""

from __future__ import annotations

import gc
import importlib
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from uncollapse.errors import RunError, UserError

if TYPE_CHECKING:
    from uncollapse.training.placement import Placement

Found = TypeVar("Found")

PATIENCE = timedelta(minutes=30)  # with a process that has something to do alone

_numbers = count()
_meeting_place: list[Any] = []  # of this process, the store, once it has one


@contextmanager
def process_group(place: Placement) -> Iterator[None]:
    """Let processes talk to each other within; afterwards nothing of it is left, threads included.

    A thread that frees a tensor while the interpreter shuts down aborts the process. A group that
    is open already is used, and stays open.

    Raises
    ------
    UserError
        If the environment does not say where the processes meet, or if a run that is to be this
        process's own is begun while it is in a group.
    """
    if place.world == 1 or dist.is_initialized():
        if place.world == 1 and processes() > 1:
            raise UserError("cannot train in one process while its process group is open")
        yield
        return
    from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage]

    # a default argument in it is the group that is open while it is imported, for good
    importlib.import_module("torch.distributed.nn.functional")
    own = torch.device("cuda", place.local_rank) if place.device.type == "cuda" else None
    if own is not None:
        torch.cuda.set_device(own)  # where NCCL puts what it sends
    dist.init_process_group(
        place.backend,
        # a store's keys outlive a group: each one needs its own
        store=PrefixStore(f"uncollapse-{next(_numbers)}", _store()),
        rank=place.rank,
        world_size=place.world,
        timeout=PATIENCE,
        device_id=own,
    )
    try:
        yield
    except BaseException as error:
        _forget_locals(error)
        raise
    finally:
        _close()


def _store() -> Any:
    """Where the processes meet: one for the life of a process, whose port is taken once."""
    from torch.distributed.rendezvous import rendezvous

    if not _meeting_place:
        try:
            store, _, _ = next(rendezvous("env://", timeout=PATIENCE))
        except (ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"the processes cannot meet: {first}") from None
        _meeting_place.append(store)
    return _meeting_place[0]


def _forget_locals(error: BaseException | None) -> None:
    """Variables of the frames that an error came through hold on to the group."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _close() -> None:
    group = dist.group.WORLD
    dist.destroy_process_group()
    gc.collect()  # wrappers of models refer to it, in circles
    # its threads end with it; to let go of it here, last, lets them have the interpreter
    del group


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


def from_first_process(find: Callable[[], Found]) -> Found:
    """What the first process finds, while the others wait for it; all must ask.

    Raises
    ------
    UncollapseError
        In every process, if finding raised one: none may wait for one that has left.
    """
    if processes() == 1:
        return find()
    told: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            told[0] = find()
        except (RunError, UserError) as error:
            told[1] = error
    dist.broadcast_object_list(told)
    found, failure = told
    if failure is not None:
        raise failure
    return found


def on_first_process(action: Callable[[], object]) -> None:
    """Do something in the first process alone; as in `from_first_process`."""

    def do() -> None:
        action()

    from_first_process(do)


@torch.no_grad()
def share_weights(model: nn.Module) -> None:
    """Give every process the weights and buffers of the first; all must ask."""
    if processes() > 1:
        for values in (*model.parameters(), *model.buffers()):
            dist.broadcast(values, 0)
