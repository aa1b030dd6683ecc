"""How far Adam would have moved a row while it had no gradient.

Without gradients the moments of a row only shrink, m → β₁ᵏ m and v → β₂ᵏ v, yet Adam goes on
moving it: k steps after step s, by

    Σⱼ aⱼ m / (bⱼ √v + ε),  j = 1 … k,  aⱼ = lr(s+j) β₁ʲ / (1 − β₁ˢ⁺ʲ),  bⱼ = √(β₂ʲ / (1 − β₂ˢ⁺ʲ)).

The bⱼ are all but equal. With b̄ their mean under the weights aⱼ, D = b̄ √v + ε, u = √v / D
and Cₙ the central moments of the bⱼ, the sum is

    (m / D) Σa (1 + C₂ u² − C₃ u³ + …),

whose first neglected term is at most C₄ / b̄⁴ · b̄ / min bⱼ, whatever v and ε. Where that is
not negligible, as in the first hundreds of steps, the sum is computed as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NEGLIGIBLE = 1e-7  # of a row's movement: half of what f32 resolves
FORGOTTEN = 1e-12  # of a first moment: it moves nothing any more, whatever the rate
FIRST_CAPACITY = 1024  # steps that there is room for at first


@dataclass
class Shares:
    """What n rows that were idle need.

    Attributes
    ----------
    columns : Tensor
        ``(6, n)``: Σa, b̄, Σa · C₂, −Σa · C₃, β₁ᵏ and β₂ᵏ.
    place, last : Tensor
        ``(n,)`` int64: where in ``rate`` and ``scale`` the step s stands; and over how many steps
        the sum of a row is taken as it stands, in which case Σa is 0, or 0.
    first, second : Tensor
        By age j: β₁ʲ and √β₂ʲ, float64.
    rate, scale : Tensor
        By step: lr / (1 − β₁ᵗ) and 1 / √(1 − β₂ᵗ), float64.
    """

    columns: Tensor
    place: Tensor
    last: Tensor
    first: Tensor
    second: Tensor
    rate: Tensor
    scale: Tensor

    def arrays(self) -> tuple[Tensor, ...]:
        """All of them."""
        return self.columns, self.place, self.last, self.first, self.second, self.rate, self.scale

    def terms(self) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Sums as they stand, term by term.

        Returns
        -------
        exact : Tensor
            ``(r,)``: the rows whose sums they are, those that were idle longest first.
        terms : list of (Tensor, Tensor)
            aⱼ and bⱼ ``(i, 1)`` for j = 1, 2, …, of the first i of ``exact``.
        """
        exact = self.last.nonzero().squeeze(1)
        exact = exact[self.last[exact].argsort(descending=True, stable=True)]
        place, last = self.place[exact], self.last[exact]
        terms = []
        for age in range(1, int(last[0]) + 1 if len(last) else 0):
            at = place[last >= age] + age
            a, b = self.first[age] * self.rate[at], self.second[age] * self.scale[at]
            terms.append((a.to(self.columns)[:, None], b.to(self.columns)[:, None]))
        return exact, terms


class IdleSteps:
    """Moments of the bⱼ for every step s after which a row may have been idle.

    Parameters
    ----------
    betas : (float, float)
    start : int
        Steps that lie behind, none of which is asked for but the last.
    """

    def __init__(self, betas: tuple[float, float], start: int = 0) -> None:
        self.betas = betas
        self.start = start  # the first s that is known
        self.step = start
        self.window = max(1, math.ceil(math.log(FORGOTTEN) / math.log(betas[0])))
        # by age j: β₁ʲ, √β₂ʲ and β₂ʲ
        self._powers = np.zeros((3, 0))
        # by s: Σ a (b − b₁)ⁿ for n = 0 … 4, and b₁; by step: lr / (1 − β₁ᵗ) and 1 / √(1 − β₂ᵗ)
        self._sums = np.zeros((5, 0))
        self._origin = self._rate = self._scale = np.zeros(0)
        self._make_room(start)

    def advance(self, rate: float, oldest: Callable[[], int]) -> None:
        """A step was made.

        Parameters
        ----------
        rate : float
            Its learning rate.
        oldest : callable
            Gives the earliest step that will be asked for from now on.
        """
        self.step += 1
        place = self.step - self.start
        if place >= len(self._origin):
            self._make_room(oldest())
            place = self.step - self.start
        scale = 1 / math.sqrt(1 - self.betas[1] ** self.step)
        self._rate[place] = rate / (1 - self.betas[0] ** self.step)
        self._scale[place] = scale
        self._origin[place - 1] = self._powers[1, 1] * scale
        first = max(0, place - self.window)
        ages = slice(place - first, 0, -1)  # j of s = first … place − 1
        term = self._powers[0, ages] * self._rate[place]
        distance = self._powers[1, ages] * scale - self._origin[first:place]
        sums = self._sums[:, first:place]
        sums[0] += term
        for power in range(1, 5):
            term = term * distance
            sums[power] += term

    def shares(self, since: Tensor, dtype: torch.dtype) -> Shares:
        """What rows need that were last moved in the steps ``since`` ``(n,)``."""
        steps = since.numpy()
        place = steps - self.start
        age = self.step - steps  # k
        total, *raw = self._sums[:, place]
        origin = self._origin[place]
        with np.errstate(invalid="ignore", divide="ignore"):  # all rates may have been 0
            one, two, three, four = (np.nan_to_num(moment / total) for moment in raw)
        mean = np.where(age == 0, 1, origin + one)
        square = one * one
        second = np.maximum(two - square, 0)
        third = three - 3 * one * two + 2 * one * square
        fourth = four - 4 * one * three + 6 * square * two - 3 * square * square
        last = np.minimum(age, self.window)  # of the j that count
        least = self._powers[1, last] * self._scale[place + last]
        direct = fourth > NEGLIGIBLE * mean**3 * least
        total = np.where(direct, 0, total)
        columns = [total, mean, total * second, -total * third]
        columns += [self._powers[0, age], self._powers[2, age]]
        powers, rate, scale = map(torch.from_numpy, (self._powers, self._rate, self._scale))
        return Shares(
            torch.from_numpy(np.stack(columns)).to(dtype),
            torch.from_numpy(place),
            torch.from_numpy(np.where(direct, last, 0)),
            powers[0],
            powers[1],
            rate,
            scale,
        )

    def _make_room(self, oldest: int) -> None:
        """Forget steps before ``oldest``; if those after it fill half of the room, double it."""
        gone = oldest - self.start
        self.start = oldest
        kept = self.step - oldest
        capacity = max(FIRST_CAPACITY, len(self._origin))
        if 2 * kept >= capacity:
            capacity *= 2
        first, second = self.betas
        # not NumPy's powers, which depend on where in an array they stand
        ages = range(self._powers.shape[1], capacity)
        more = np.array([[first**j, second ** (j / 2), second**j] for j in ages]).reshape(-1, 3)
        self._powers = np.concatenate([self._powers, more.T], 1)

        def moved(values: np.ndarray) -> np.ndarray:
            room = np.zeros((*values.shape[:-1], capacity))
            old = values[..., gone:]
            room[..., : old.shape[-1]] = old
            return room

        self._sums, self._origin = moved(self._sums), moved(self._origin)
        self._rate, self._scale = moved(self._rate), moved(self._scale)


def note_rate(changes: list[list[float]], step: int, rate: float) -> None:
    """Remember the learning rate of ``step``, the next one: where it changed, ``[step, rate]``."""
    if not changes or changes[-1][1] != rate:
        changes.append([step, rate])


def rates_after(changes: list[list[float]], step: int, last: int) -> list[float]:
    """The learning rates of the steps ``step`` + 1 … ``last``."""
    found: list[float] = []
    ends = [first for first, _ in changes[1:]] + [last + 1]
    for (first, rate), end in zip(changes, ends, strict=False):
        found += [rate] * int(end - max(first, step + 1))
    return found
