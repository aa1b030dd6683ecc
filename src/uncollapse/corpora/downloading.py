"""A file from the network: streamed, resumed where it broke off, and checked before it counts."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uncollapse import __version__
from uncollapse.errors import RunError

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4  # of which each goes on where the one before broke off
_BLOCK = 1 << 18


class _BrokenOffError(Exception):
    """The server stopped before the end."""


def download(address: str, target: Path, *, sha256: str, size: int) -> Path:
    """Fetch a file whose content is known.

    What has arrived is kept beside it as ``.partial``, and a later call goes on from there.

    Parameters
    ----------
    address : str
    target : Path
        Appears only whole and checked.
    sha256 : str
    size : int
        Bytes.

    Raises
    ------
    RunError
        If the server does not answer, refuses, breaks off or sends something else; if the file
        cannot be written.
    """
    if target.is_file() and checksum(target) == sha256:
        return target
    partial = target.with_name(f"{target.name}.partial")
    with _writing(partial):
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
    for attempt in range(1, ATTEMPTS + 1):
        before = partial.stat().st_size
        if before == size:
            break
        try:
            _receive(address, partial, size)
            break
        except _BrokenOffError as error:
            arrived = partial.stat().st_size
            if attempt == ATTEMPTS or arrived <= before:
                raise RunError(
                    f"{address} {error} after {arrived:,} of {size:,} bytes; run again to go on "
                    "from there"
                ) from None
    if checksum(partial) != sha256:
        partial.unlink()
        raise RunError(
            f"{address} has another checksum than is known; what it sent was thrown away"
        )
    with _writing(target):
        partial.replace(target)
    return target


def checksum(file: Path) -> str:
    """SHA-256 of a file.

    Raises
    ------
    RunError
        If it cannot be read.
    """
    try:
        with file.open("rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{file}: {error.strerror or error}") from None


def _receive(address: str, partial: Path, size: int) -> None:
    """Add to the partial file what it lacks."""
    start = partial.stat().st_size
    if start > size:
        start = 0
    headers = {"User-Agent": f"uncollapse/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(address, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            partial.unlink()  # it is of another file than is there now
        raise RunError(f"{address} answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise RunError(f"{address} cannot be reached: {_why(error)}") from None
    with answer:
        total = _total(answer)
        if total is not None and total != size:
            raise RunError(
                f"{address} is another file than is known: {total:,} bytes, not {size:,}"
            )
        resumed = start > 0 and _resumes_at(answer, start)
        arrived = start if resumed else 0  # a server that knows no ranges sends all of it again
        for block in _blocks(answer, partial, "ab" if resumed else "wb"):
            arrived += block
            if arrived > size:
                partial.unlink()
                raise RunError(f"{address} sends more than the {size:,} bytes that are known")
    if arrived < size:
        raise _BrokenOffError("broke off")


def _blocks(answer: http.client.HTTPResponse, partial: Path, mode: str) -> Iterator[int]:
    """Write what arrives, block by block; gives their sizes."""
    with _writing(partial), partial.open(mode) as file:
        while True:
            try:
                block = answer.read1(_BLOCK)
            except TimeoutError:
                raise _BrokenOffError("stopped sending") from None
            except (OSError, http.client.HTTPException):
                raise _BrokenOffError("broke off") from None
            if not block:
                return
            file.write(block)
            file.flush()  # what has arrived counts, whatever comes next
            yield len(block)


def _total(answer: http.client.HTTPResponse) -> int | None:
    """Bytes of the whole file, as far as the server says."""
    if answer.status == http.client.PARTIAL_CONTENT:
        given = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        given = answer.headers.get("Content-Length", "")
    return int(given) if given.isdecimal() else None


def _resumes_at(answer: http.client.HTTPResponse, start: int) -> bool:
    """Whether the answer is the rest of the file, from this byte on."""
    given = answer.headers.get("Content-Range", "")
    return answer.status == http.client.PARTIAL_CONTENT and given.startswith(f"bytes {start}-")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


def _why(error: Exception) -> str:
    """The cause in words, which urllib wraps."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(cause)
