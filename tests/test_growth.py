"""The growth benchmark tells linear growth from worse, and runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import growth  # noqa: E402
from growth_figure import growth_figure  # noqa: E402
from growth_points import Point  # noqa: E402


def points(power: float, constant: float = 0.0, noise: float = 0.01) -> list[Point]:
    """Seconds and memory by a power law, each repeat a little off."""
    sizes = (10, 100, 1_000, 10_000)
    return [
        Point(
            size,
            [(constant + size**power) * (1 + noise * turn) for turn in (-1, 0, 1)],
            1_000 + size**power,
        )
        for size in sizes
    ]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponents_are_those_of_the_law(power: float) -> None:
    time, memory = growth.exponents(points(power))
    assert time.value == pytest.approx(power, abs=0.01)
    assert time.noise < 0.02
    assert time.is_linear == (power <= 1)
    assert memory.value < power + 0.01


def test_a_constant_does_not_hide_a_square_for_long() -> None:
    """At small sizes it would: hence the exponent is of the upper points."""
    time, _ = growth.exponents(points(2.0, constant=10_000))
    assert not time.is_linear


def test_noise_widens_what_counts_as_linear() -> None:
    quiet, _ = growth.exponents(points(1.3, noise=0.01))
    loud, _ = growth.exponents(points(1.3, noise=0.5))
    assert not quiet.is_linear
    assert loud.noise > quiet.noise


def test_table_says_what_is_not_linear(capsys: pytest.CaptureFixture[str]) -> None:
    growth.show({"samples": points(1.0), "length": points(2.0)})
    rows = capsys.readouterr().out.splitlines()
    assert next(row for row in rows if "S: likelihood" in row).endswith("yes")
    assert next(row for row in rows if "Length: training" in row).endswith("NO")


def test_figure_has_two_panels_a_curve() -> None:
    curves = {growth.CURVES[name]: points(1.0) for name in ("samples", "corpus", "groups")}
    assert len(growth_figure(curves).axes) == 6


def test_unknown_curve_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        growth.main(["--only", "sample"])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: unknown curve 'sample'; did you mean 'samples'?\n"


@pytest.mark.slow
def test_growth_benchmark_runs(tmp_path: Path) -> None:
    """Every curve at toy sizes, and the figure of what it wrote."""
    out, picture = tmp_path / "growth.json", tmp_path / "growth.png"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, BENCHMARKS / "growth.py", "--tiny", "--json", out]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(curve.title in done.stdout for curve in growth.CURVES.values())
    growth.main(["--read", str(out), "--figure", str(picture)])
    found = json.loads(out.read_text())["curves"]
    assert set(found) == set(growth.CURVES)
    assert all(point["seconds"] for own in found.values() for point in own)
    assert picture.stat().st_size > 10_000
