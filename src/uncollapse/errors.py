"""The two ways in which the program says no, each one line long."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UncollapseError(Exception):
    """Base of every error that is meant for the user's eyes; its text is one line."""

    exit_code = 1


class UserError(UncollapseError, ValueError):
    """Bad input or bad usage: a file, a column, a key, a name. Exit code 2."""

    exit_code = 2


class RunError(UncollapseError, RuntimeError):
    """A failure while running: a non-finite loss, a damaged checkpoint, a full disk. Exit 1."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that does not exist, with the nearest right one.

    Parameters
    ----------
    what : str
        What was named, e.g. ``"recipe"``.
    name : str
        What the user wrote.
    known : iterable of str
        The names that exist.
    """
    known = sorted(known)
    same = [right for right in known if right.casefold() == name.casefold()]
    close = same or get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return UserError(f"unknown {what} {name!r}; {hint}")
