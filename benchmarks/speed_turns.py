"""Variants that are compared take turns, each in a process of its own."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from speed_machine import has_kernels

# modules that workers need not import themselves; none asks for kernels while it is imported
PRELOADED = ["uncollapse.training.fit", "uncollapse.recipes", "plain.families"]
KERNELS = "UNCOLLAPSE_KERNELS"  # the variable that switches native kernels off


@dataclass(frozen=True)
class Variant:
    """One way to do a workload.

    Attributes
    ----------
    work : callable
        Gets `Turns` and ``options``, and takes turns until there are no more.
    options : dict
    limit : str
        The precision in which it multiplies, see `speed_machine`.
    kernels : bool
        Whether native kernels may be used, where there are any.
    """

    work: Callable[..., None]
    options: dict[str, Any]
    limit: str
    kernels: bool = True


@dataclass(frozen=True)
class Round:
    """One turn of one variant.

    Attributes
    ----------
    count : int
        Predicted tokens.
    seconds, peak_mb : float
        Peak memory is that of the process, less what it had when it began, with all imports.
    figures, errors : list of float
        What was computed, for comparison, and Monte-Carlo errors where known.
    """

    count: int
    seconds: float
    peak_mb: float
    figures: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.count / self.seconds


class Turns:
    """A worker's end of the pipe: one turn at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._started = 0.0
        self._imports = resident_mb()

    def next(self) -> bool:
        """Say that the last turn is over; wait for the next one, or hear that there is none."""
        self._connection.send(None)
        again = self._connection.recv()
        self._started = time.perf_counter()
        return again

    def done(self, count: int, **facts: Any) -> None:
        """Report a turn."""
        seconds = time.perf_counter() - self._started
        self._connection.send(Round(count, seconds, peak_mb() - self._imports, **facts))


def take_turns(variants: Mapping[str, Variant], rounds: int) -> dict[str, list[Round]]:
    """Let variants do so many rounds, one after the other in each."""
    ends: dict[str, Connection] = {}
    workers: list[BaseProcess] = []
    found: dict[str, list[Round]] = {name: [] for name in variants}
    try:
        for name, variant in variants.items():
            ends[name], worker = start(_work, variant)
            workers.append(worker)
            _receive(ends[name], name)  # is set up, and none beside it
        for _ in range(rounds):
            for name, end in ends.items():
                end.send(True)
                found[name].append(_receive(end, name))
                _receive(end, name)
        for end, worker in zip(ends.values(), workers, strict=True):
            end.send(False)
            worker.join()
    finally:
        for worker in workers:
            worker.kill()
    return found


def start(function: Callable[..., None], *arguments: Any) -> tuple[Connection, BaseProcess]:
    """Run ``function(*arguments, connection)`` in a clean process."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    end, other = context.Pipe()
    worker = context.Process(target=function, args=(*arguments, other), daemon=True)
    worker.start()
    other.close()
    return end, worker


def peak_mb() -> float:
    """Most memory that this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mb() -> float:
    """Memory that this process has now, MB."""
    statm = Path("/proc/self/statm")
    if not statm.exists():  # then what it had at most must do
        return peak_mb()
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _receive(end: Connection, name: str) -> Any:
    try:
        return end.recv()
    except EOFError:
        raise SystemExit(f"error: {name!r} stopped; what it said is above") from None


def _work(variant: Variant, connection: Connection) -> None:
    if not variant.kernels:
        os.environ[KERNELS] = "off"
        assert not has_kernels(), "somebody has asked for kernels while PRELOADED was imported"
    variant.work(turns=Turns(connection), **variant.options)
