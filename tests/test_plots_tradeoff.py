"""The trade-off of a sweep: which figures are drawn, in what order, and where none can be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Annotation

from uncollapse.errors import UserError
from uncollapse.plots import to_svg
from uncollapse.plots.tradeoff import Point, tradeoff
from uncollapse.report.sweep import Sweep, TradeOff, draw_tradeoff
from uncollapse.report.table import build_table

KEY = "latents.z.divergence.beta"


def written(figure: Any) -> list[str]:
    """The values beside the points."""
    return [text.get_text() for text in figure.axes[0].texts if isinstance(text, Annotation)]


def figures(**values: float | None) -> dict[str, Any]:
    return {
        name: {
            "value": value, "unit": "", "standard_error": 0.5, "estimator": "", "definition": "",
        }
        for name, value in values.items()
    }  # fmt: skip


def drawn(runs: dict[str, list[dict[str, Any]]], values: tuple[str, ...]) -> TradeOff | None:
    systems = {"dgm-vae": {value: f"dgm-vae, beta={value}" for value in values}}
    seeds = max(map(len, runs.values()))
    return draw_tradeoff(Sweep(KEY, systems), build_table(runs, seeds, floor=90.0))


def test_a_line_joins_the_values_and_names_them() -> None:
    line = [Point("0", 1.0, 9.0, 0.1, 0.2), Point("0.5", 3.0, 4.0), Point("0.8", 4.0, 1.0)]
    figure = tradeoff({"a": line, "b": [Point("", 2.0, 2.0)]}, "NLL", "PPL", title="T", key="beta")
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1.0, 3.0, 4.0])
    assert axes.lines[0].get_linestyle() == "-"
    assert axes.lines[1].get_linestyle() == "None"
    assert written(figure) == ["0", "0.5", "0.8", ""]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("NLL", "PPL")
    assert axes.get_title(loc="left") == "T"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a over beta", "b"]
    assert "0.8" in to_svg(figure, "what")


def test_values_at_one_place_share_a_name() -> None:
    line = [Point("0", 1.0, 5.0), Point("0.1", 1.001, 5.0), Point("0.9", 9.0, 1.0)]
    assert written(tradeoff({"a": line}, "x", "y")) == ["0, 0.1", "0.9"]
    assert written(tradeoff({"a": line[:1]}, "x", "y")) == ["0"]
    with pytest.raises(UserError, match="needs a system"):
        tradeoff({"a": []}, "x", "y")


@given(st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)), min_size=1, max_size=8))
def test_every_value_is_written_once(places: list[tuple[float, float]]) -> None:
    line = [Point(str(number), *place) for number, place in enumerate(places)]
    names = ", ".join(written(tradeoff({"a": line}, "x", "y"))).split(", ")
    assert sorted(names) == sorted(str(number) for number in range(len(places)))


def test_reverse_perplexity_is_drawn_in_the_order_of_the_values() -> None:
    runs = {
        "dgm-vae, beta=0.5": [figures(nll=102.0, reverse_ppl=500.0, bleu=3.0)],
        "dgm-vae, beta=0": [figures(nll=100.0, reverse_ppl=900.0, bleu=1.0)],
        "dgm-vae, beta=10": [figures(nll=109.0, reverse_ppl=300.0, bleu=9.0)],
        "lstm-lm": [figures(nll=99.0, reverse_ppl=200.0, bleu=None)],
    }
    found = drawn(runs, ("0.5", "0", "10"))
    assert found is not None
    assert found.title == "Reverse perplexity against NLL over beta"
    swept, fixed = found.figure.axes[0].lines[0], found.figure.axes[0].lines[-1]
    np.testing.assert_array_equal(swept.get_xdata(), [100.0, 102.0, 109.0])
    np.testing.assert_array_equal(swept.get_ydata(), [900.0, 500.0, 300.0])
    np.testing.assert_array_equal(fixed.get_xdata(), [99.0])
    assert written(found.figure) == ["0", "0.5", "10", ""]


def test_bars_are_errors_over_seeds() -> None:
    runs = {
        "dgm-vae, beta=0": [
            figures(nll=100.0, reverse_ppl=900.0),
            figures(nll=102.0, reverse_ppl=900.0),
        ]
    }
    found = drawn(runs, ("0",))
    assert found is not None
    horizontal, vertical = found.figure.axes[0].collections
    ends = np.concatenate([part.get_segments() for part in (horizontal, vertical)])  # type: ignore[attr-defined]
    np.testing.assert_allclose(ends[0][:, 0], [100.0, 102.0])  # 101 ± 1
    np.testing.assert_allclose(ends[1][:, 1], [900.0, 900.0])


def test_bleu_stands_in_for_reverse_perplexity() -> None:
    runs = {
        f"dgm-vae, beta={value}": [figures(nll=100.0 + n, bleu=2.0 * n)]
        for n, value in enumerate(("0", "null", "[a, b]"))
    }
    found = drawn(runs, ("0", "null", "[a, b]"))
    assert found is not None
    assert found.title.startswith("BLEU of reconstructions against NLL over beta")
    assert "no reverse perplexity" in found.title
    assert "BLEU" in found.figure.axes[0].get_ylabel()
    assert written(found.figure) == ["0", "null", "[a, b]"]  # as given: they are no numbers


def test_a_point_that_is_missing_is_left_out() -> None:
    gone: dict[str, list[dict[str, Any]]] = {
        "dgm-vae, beta=0": [],
        "dgm-vae, beta=1": [figures(nll=100.0, bleu=3.0)],
    }
    found = drawn(gone, ("0", "1"))
    assert found is not None
    assert written(found.figure) == ["1"]
    assert drawn({"dgm-vae, beta=0": [figures(nll=None, bleu=3.0)]}, ("0",)) is None
    fixed_only = {"dgm-vae, beta=0": [], "vae": [figures(nll=100.0, bleu=3.0)]}
    assert drawn(fixed_only, ("0",)) is None
