"""What was once worked out about a large file, kept until the file changes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

LARGE = 1 << 24  # bytes; to read a smaller file takes no time
_SETTLED = 2_000_000_000  # nanoseconds; the clocks of file systems may be coarse

T = TypeVar("T")


def known(path: Path, what: str, find: Callable[[Path], T], folder: Path | None) -> T:
    """What `find` says of a file, or has said of it before; only large files are remembered.

    A file is taken for the same while its size, times of change and inode are. As with Git's
    index, nothing is remembered of a file that changed a moment ago: another change may follow
    within one tick of the clock.

    Parameters
    ----------
    path : Path
    what : str
        Things of one name replace one another.
    find : callable
        Reads the file; what it returns must be JSON.
    folder : Path or None
        Where to keep it; None: nowhere. Where it cannot be written, nothing is kept.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    begin = time.time_ns()
    before = path.stat()
    if folder is None or before.st_size < LARGE:
        return find(path)
    place = f"{what}\n{path.absolute()}".encode()
    note = folder / f".known-{hashlib.sha256(place).hexdigest()[:40]}.json"
    state = _state(before)
    with suppress(OSError, ValueError, KeyError, TypeError):
        noted = json.loads(note.read_bytes())
        if noted["state"] == state:
            return noted["value"]
    value = find(path)
    settled = begin - max(before.st_mtime_ns, before.st_ctime_ns) > _SETTLED
    if settled and _state(path.stat()) == state:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            temporary = note.with_name(f"{note.name}.{os.getpid()}")
            temporary.write_text(json.dumps({"state": state, "value": value}))
            temporary.replace(note)
    return value


def _state(found: os.stat_result) -> list[int]:
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Of processes that make the same thing, let one go first and the others wait.

    Where the system or the file system knows no locks, all go at once.

    Parameters
    ----------
    path : Path
        What they make; the lock is a hidden file beside it, which does not stay.
    """
    place = path.with_name(f".lock-{path.name}")
    descriptor = _locked(place)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                place.unlink()
            os.close(descriptor)


def _locked(place: Path) -> int | None:
    """A descriptor of the file, locked; None where there are no locks."""
    try:
        import fcntl

        place.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # who held it before has removed it: a lock on that file keeps nobody out
                if place.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    except (ImportError, OSError):
        return None
