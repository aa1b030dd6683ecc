"""Codes of discrete variables: which variable, which code a sentence has, how it is written."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from uncollapse.errors import UserError, unknown_name
from uncollapse.latents import COMPONENT
from uncollapse.model import Model

ANY = "*"
FEW = 1000  # joint codes that are looked at whatever the sentences
NO_VARIABLE = "the model has no discrete variable: neither a mixture nor a latent of codes"


def choose_variable(model: Model, variable: str | None = None) -> str:
    """The variable of that name; without one, what the model clusters by.

    That are the components of its first mixture, or else its first discrete latent.

    Raises
    ------
    UserError
        For an unknown name, or a model without a discrete variable.
    """
    known = list(model.variable_sizes())
    if not known:
        raise UserError(NO_VARIABLE)
    if variable is None:
        return next((name for name in known if name.endswith(COMPONENT)), known[0])
    if variable not in known:
        raise unknown_name("variable", variable, known)
    return variable


def check_index(index: int | None, size: tuple[int, int], variable: str) -> None:
    """Refuse an index that a variable of M indexes with K values does not have."""
    if index is not None and not 0 <= index < size[0]:
        raise UserError(f"{variable} has indexes 0 … {size[0] - 1}, no {index}")


def assignments(log_probs: Tensor, index: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The most probable code of every sentence.

    Parameters
    ----------
    log_probs : Tensor
        ``(N, M, K)``.
    index : int, optional
        Look at this one of the M indexes; without it, at all of them together.

    Returns
    -------
    codes : ndarray
        ``(C, m)`` int64: the codes that occur, in order; m is M or 1.
    numbers : ndarray
        ``(N,)`` int64: which of them each sentence has.
    """
    values = log_probs.argmax(-1).cpu().numpy()  # (N, M)
    if index is not None:
        values = values[:, index : index + 1]
    codes, numbers = np.unique(values, axis=0, return_inverse=True)
    return codes, numbers.reshape(-1)


def check_joint(codes: int, sentences: int, size: tuple[int, int]) -> None:
    """Refuse joint codes, so many of so many sentences, that gather nothing.

    Raises
    ------
    UserError
        Where there are more than `FEW` and more than one in two sentences uses.
    """
    indexes, values = size
    if values**indexes > FEW and codes > sentences / 2:
        found = f"{sentences:,} sentences have {codes:,} different joint codes"
        raise UserError(f"{found}: look at one index, --index 0 … {indexes - 1}")


def write_code(code: tuple[int, ...]) -> str:
    """``3``, or ``2-0-4`` of several indexes; a negative value is ``*``."""
    return "-".join(ANY if value < 0 else str(value) for value in code)


def parse_code(text: str, size: tuple[int, int], index: int | None = None) -> tuple[int, ...]:
    """Read a code such as ``2-*-4``.

    Parameters
    ----------
    text : str
        A value for each of the M indexes, ``*`` for any; with ``index``, for that one alone.
    size : (int, int)
        M indexes of K values.
    index : int, optional

    Returns
    -------
    tuple of int
        As many values as ``text`` has, −1 for any.

    Raises
    ------
    UserError
        For another number of values, or one that there is not.
    """
    indexes, values = size
    check_index(index, size, "the variable")
    expected = indexes if index is None else 1
    parts = text.strip().split("-")
    if len(parts) != expected:
        example = "-".join(["0"] * min(expected, 3)) + ("-…" if expected > 3 else "")
        plural = "" if expected == 1 else "s"
        raise UserError(f"a code has {expected} value{plural} here, e.g. {example}, not {text!r}")
    for part in parts:
        if part != ANY and not (part.isascii() and part.isdigit() and int(part) < values):
            raise UserError(f"code {text!r}: {part!r} is none of the values 0 … {values - 1} or *")
    return tuple(-1 if part == ANY else int(part) for part in parts)
