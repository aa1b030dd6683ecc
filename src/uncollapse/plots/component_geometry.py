"""Where the dots, ellipses and axes of a picture of components lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from uncollapse.errors import UserError

if TYPE_CHECKING:
    from uncollapse.evaluation.snapshot import Snapshot

ALIKE = 0.1  # deviations: components that are nearer than this have melted
SHOWN = 0.99  # share of the sentences that an axis must hold
DEVIATIONS = 2.15  # of a component or a prior that it must hold
LEAST = 0.5  # half the width of a picture of which nothing says the scale


@dataclass(frozen=True)
class Group:
    """What a snapshot says of one of its groups, of G numbers and K components.

    Attributes
    ----------
    points : ndarray
        ``(N, G)`` float64: posterior means.
    component, labels : ndarray or None
        ``(N,)``.
    centres, deviations : ndarray
        ``(K, G)`` float64; K is 0 without a mixture.
    prior : ndarray or None
        ``(G,)``: standard deviations of a Gaussian prior about 0.
    """

    points: np.ndarray
    component: np.ndarray | None
    labels: np.ndarray | None
    centres: np.ndarray
    deviations: np.ndarray
    prior: np.ndarray | None

    @property
    def dim(self) -> int:
        """G."""
        return self.points.shape[1]

    @property
    def count(self) -> int:
        """K."""
        return len(self.centres)

    @cached_property
    def used(self) -> np.ndarray:
        """Whether any sentence is a component's, ``(K,)`` bool."""
        if self.component is None:
            return np.zeros(self.count, bool)
        return np.isin(np.arange(self.count), self.component)

    @cached_property
    def together(self) -> list[list[int]]:
        """The components in sets of those that have melted into one another; see `melted`."""
        return melted(self.centres, self.deviations)


def group_of(snapshot: Snapshot, group: int) -> Group:
    """One group of a snapshot.

    Raises
    ------
    UserError
        If there is no such group.
    """
    if not 0 <= group < snapshot.groups:
        known = "only group 0" if snapshot.groups == 1 else f"groups 0 to {snapshot.groups - 1}"
        raise UserError(f"latent {snapshot.latent} has no group {group}, {known}")
    points = snapshot.means.astype(np.float64).reshape(len(snapshot.means), snapshot.groups, -1)
    none = np.zeros((0, points.shape[2]))
    means, deviations = snapshot.component_means, snapshot.component_deviations
    return Group(
        points[:, group],
        None if snapshot.component is None else snapshot.component[:, group],
        snapshot.labels,
        none if means is None else means[group].astype(np.float64),
        none if deviations is None else deviations[group].astype(np.float64),
        snapshot.deviation,
    )


def melted(centres: np.ndarray, deviations: np.ndarray) -> list[list[int]]:
    """Sets of components that one can walk through in steps of less than a tenth of a deviation.

    A step leads to a component whose mean and whose deviation differ, in every number, by at
    most `ALIKE` of the root mean square of the two deviations.

    Parameters
    ----------
    centres, deviations : ndarray
        ``(K, G)``.
    """
    count = len(centres)
    scale = np.sqrt((deviations[:, None] ** 2 + deviations[None] ** 2) / 2)  # (K, K, G)
    limit = ALIKE * scale + 1e-12  # two components that are points may be the same point
    apart = np.abs(centres[:, None] - centres[None]), np.abs(deviations[:, None] - deviations[None])
    near = np.all((apart[0] <= limit) & (apart[1] <= limit), axis=2)  # (K, K)
    sets: list[list[int]] = []
    left = set(range(count))
    while left:
        found: list[int] = []
        queue = [min(left)]
        left.discard(queue[0])
        while queue:
            found.append(queue.pop())
            step = left & set(np.flatnonzero(near[found[-1]]).tolist())
            left -= step
            queue += step
        sets.append(sorted(found))
    return sets


def ellipse(deviations: np.ndarray, axes: np.ndarray) -> tuple[float, float, float]:
    """Half the width and half the height of a component's ellipse, and its angle in degrees.

    One standard deviation of independent numbers, seen along two axes.

    Parameters
    ----------
    deviations : ndarray
        ``(G,)``.
    axes : ndarray
        ``(2, G)``, orthonormal.
    """
    covariance = (axes * deviations**2) @ axes.T  # (2, 2)
    if covariance[0, 1] == 0:
        return float(np.sqrt(covariance[0, 0])), float(np.sqrt(covariance[1, 1])), 0.0
    squares, directions = np.linalg.eigh(covariance)
    radii = np.sqrt(squares.clip(min=0))
    angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
    return float(radii[1]), float(radii[0]), float(angle)


@dataclass(frozen=True)
class View:
    """What of a latent space is seen.

    Attributes
    ----------
    axes : ndarray
        ``(A, G)``: A = 2 orthonormal directions, or the only one.
    low, high : ndarray
        ``(A,)``: where the axes begin and end. Both are equally long.
    """

    axes: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def names(self) -> list[str]:
        """Of the axes."""
        count = self.axes.shape[1]
        if count <= 2:
            return [f"dimension {number + 1}" for number in range(count)]
        return [f"{which} principal axis of {count} dimensions" for which in ("first", "second")]


def view_of(groups: Sequence[Group]) -> View:
    """One view that shows all these groups, of as many numbers each.

    One or two dimensions are seen as they are; of more, the principal axes of the sentences and
    the components of all groups together, which weigh as much as one another. The origin stays,
    and nothing is scaled.
    """
    axes = np.eye(groups[0].dim) if groups[0].dim <= 2 else _principal_axes(groups)
    boxes = np.stack([_box(group, axes) for group in groups])  # (groups, 2, A)
    middle = (boxes[:, 0].min(0) + boxes[:, 1].max(0)) / 2
    half = float(np.max(boxes[:, 1].max(0) - middle))
    known = any(group.count or group.prior is not None for group in groups)
    half = 1.05 * (half if known else max(half, LEAST))
    return View(axes, middle - half, middle + half)


def same_window(views: Sequence[View]) -> list[View]:
    """Views of the same numbers of axes, all of which show what any does."""
    middle = np.mean([(view.low + view.high) / 2 for view in views], axis=0)
    half = max(float(np.abs([view.low - middle, view.high - middle]).max()) for view in views)
    return [replace(view, low=middle - half, high=middle + half) for view in views]


def _principal_axes(groups: Sequence[Group]) -> np.ndarray:
    """``(2, G)``."""
    rows = np.concatenate([part for group in groups for part in (group.points, group.centres)])
    weights = np.concatenate(
        [np.full(len(p), 1 / len(p)) for g in groups for p in (g.points, g.centres) if len(p)]
    )
    weights = weights[:, None] / weights.sum()
    centred = (rows - (weights * rows).sum(0)) * np.sqrt(weights)
    axes = np.linalg.svd(centred, full_matrices=True)[2][:2]  # (2, G)
    # an axis has no sign of its own: let its largest number be positive
    largest = axes[np.arange(2), np.abs(axes).argmax(1)]
    return axes * np.where(largest < 0, -1, 1)[:, None]


def _box(group: Group, axes: np.ndarray) -> np.ndarray:
    """The least and the greatest ``(2, A)`` that must be seen of a group."""
    points = group.points @ axes.T  # (N, A)
    tail = (1 - SHOWN) / 2
    corners = [np.quantile(points, tail, axis=0), np.quantile(points, 1 - tail, axis=0)]
    if group.prior is not None:
        reach = DEVIATIONS * np.sqrt(axes**2 @ group.prior**2)
        corners += [-reach, reach]
    centres = group.centres @ axes.T  # (K, A)
    reach = DEVIATIONS * np.sqrt(group.deviations**2 @ (axes**2).T)  # (K, A)
    ends = np.stack([centres - reach, centres + reach], 1)  # (K, 2, A)
    corners += [*ends[group.used].reshape(-1, len(axes))]
    # what no sentence is near may lie far away: it must not make the rest small
    needed = np.ptp(corners, axis=0).max()
    for pair in ends[~group.used]:
        if np.ptp([*corners, *pair], axis=0).max() <= 2 * needed:
            corners += [*pair]
    return np.stack([np.min(corners, axis=0), np.max(corners, axis=0)])
