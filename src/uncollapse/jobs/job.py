"""One run of many, as plain data that any process can be given, and what became of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from uncollapse.errors import UncollapseError


class Measured(Protocol):
    """What a run has given."""

    def value(self, name: str, /) -> float | None:
        """A figure, or None where the system has none."""
        ...


class Job(ABC):
    """A run that is done once, in whatever process; it is pickled on its way there.

    Attributes
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    device: str

    @property
    @abstractmethod
    def log(self) -> Path:
        """Where what it has to say goes, below the folder of the logs."""

    @abstractmethod
    def describe(self) -> str:
        """Its name in a line, e.g. ``ptb, bn-vae, seed 0``."""

    @abstractmethod
    def finished(self) -> Any:
        """What it has given, a `Measured`, if nothing is left to do; else None."""

    @abstractmethod
    def do(self) -> Any:
        """Do whatever is not done yet, here and now, and give what there is then.

        Raises
        ------
        UncollapseError
            Bad data, a failure, or `Interrupted` after a checkpoint.
        """


Own = TypeVar("Own", bound=Job)


@dataclass(frozen=True)
class Outcome(Generic[Own]):
    """What became of a job.

    Attributes
    ----------
    task : Job
    record : Measured or None
        What it has given; None if it failed.
    failure : str
        One line; empty if it did not.
    """

    task: Own
    record: Any
    failure: str = ""


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the folder of a run, so that it is computed once; waits for whoever else computes it."""
    run.parent.mkdir(parents=True, exist_ok=True)
    with (run.parent / f".{run.name}.lock").open("w") as lock:
        try:
            import fcntl
        except ImportError:  # not on Windows
            yield
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def one_line(error: Exception) -> str:
    """What went wrong, in a line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'input/output'}: {error.strerror}"
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, UncollapseError) else f"{type(error).__name__}: {first}"


def figures(record: Measured) -> str:
    """The first figures of a run in one line."""
    found = {name.upper(): record.value(name) for name in ("nll", "kl", "mi")}
    shown = [f"{name} {value:.2f}" for name, value in found.items() if value is not None]
    return ", ".join(shown) or "measured"
