"""Landscapes of dispersion: numbers against the families, and the pictures of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from uncollapse.errors import UserError
from uncollapse.plots import to_svg
from uncollapse.plots.dispersion import dispersion_landscape, landscape, levels_of
from uncollapse.plots.dispersion_planes import PLANES, plane_of
from uncollapse.report.figures import plot_landscape


@pytest.mark.parametrize("kind", PLANES)
@pytest.mark.parametrize("weight", [0.5, 0.9])
def test_the_surface_is_the_familys_own(kind: str, weight: float) -> None:
    plane, found = plane_of(kind), landscape(kind, weight, points=7)
    family = plane.family
    for row, column in itertools.product(range(7), range(7)):
        x, y = (
            torch.tensor(float(v), dtype=torch.float64) for v in (found.x[column], found.y[row])
        )
        pair = plane.naturals(x, y)  # (2, P)
        assert bool(family.feasible(pair).all())
        mean = weight * pair[0] + (1 - weight) * pair[1]
        # L_d as a sum of KLs to the averaged member, which needs nothing of `dispersion`
        each = [family.kl(mean, pair[k]) for k in range(2)]
        expected = weight * each[0] + (1 - weight) * each[1]
        assert found.dispersion[row, column] == pytest.approx(float(expected), rel=1e-5, abs=1e-9)
        squares = weight * pair[0].square().sum() + (1 - weight) * pair[1].square().sum()
        variance = float(squares - mean.square().sum())
        assert found.variance[row, column] == pytest.approx(variance, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", PLANES)
def test_where_components_are_the_same_nothing_is_left(kind: str) -> None:
    plane = plane_of(kind)
    points = [plane.collapse] if plane.collapse else [(v, v) for v in plane.x.values(5).tolist()]
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    for point in points:
        pair = plane.naturals(*torch.tensor(point, dtype=torch.float64))
        torch.testing.assert_close(pair[0], pair[1])
        assert float(plane.family.dispersion(weights, pair)) == pytest.approx(0, abs=1e-9)
        assert float(plane.family.weighted_variance(weights, pair)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", PLANES)
def test_arrows_go_downhill(kind: str) -> None:
    plane, found = plane_of(kind), landscape(kind, 0.4, points=3)
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64)

    def at(shares: np.ndarray) -> np.ndarray:
        x, y = torch.from_numpy(shares).unbind(-1)
        pair = plane.naturals(plane.x.at(x), plane.y.at(y))
        return plane.family.dispersion(weights, pair).numpy()

    length = np.hypot(*found.down.T)
    step = 1e-4 * found.down / np.maximum(length, 1e-12)[:, None]
    steep = length > 1e-3
    assert steep.any()
    fall = (at(found.arrows) - at(found.arrows + step)) / 1e-4
    np.testing.assert_allclose(fall[steep], length[steep], rtol=0.1, atol=1e-3)


def test_of_a_known_variance_it_is_half_the_variance() -> None:
    found = landscape("known-variance-gaussian", 0.3)  # A(η) = η²/2
    np.testing.assert_allclose(found.dispersion, found.variance / 2, atol=1e-12)


def test_contours_are_a_factor_of_three_apart() -> None:
    levels = levels_of(np.array([[0.0, 2.5]]))
    assert levels[-1] == 1
    np.testing.assert_allclose(levels[:3], [1e-4, 3e-4, 1e-3])


@pytest.mark.parametrize("kind", PLANES)
def test_every_family_has_a_picture(kind: str, tmp_path: Path) -> None:
    text = to_svg(dispersion_landscape(kind, weight=0.25), "a landscape")
    assert f"Two {kind} components, weights 0.25 and 0.75" in text
    assert "collapse" in text
    out = tmp_path / "landscape.png"
    assert plot_landscape(kind, out) == out
    assert out.stat().st_size > 10_000


def test_mistakes_about_landscapes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'gaussian'"):
        plot_landscape("gausian", tmp_path / "a.svg")
    for weight in (0.0, 1.0, float("nan")):
        with pytest.raises(UserError, match="between 0 and 1"):
            plot_landscape("gamma", tmp_path / "a.svg", weight=weight)
    with pytest.raises(UserError, match="must end in"):
        plot_landscape("gamma", tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", PLANES)
def test_shares_of_an_axis(kind: str) -> None:
    for axis in (plane_of(kind).x, plane_of(kind).y):
        values = axis.values(5)
        np.testing.assert_allclose(values[[0, -1]], [axis.low, axis.high])
        np.testing.assert_allclose(axis.share(values), np.linspace(0, 1, 5), atol=1e-12)
