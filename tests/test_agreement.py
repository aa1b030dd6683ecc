"""Agreement of raters and tests of systems, against published and hand-worked figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uncollapse.errors import UserError
from uncollapse.rating.agreement import LEVELS, krippendorff_alpha
from uncollapse.rating.paired import PairedTest, holm_corrected, paired_test


def matrix(*raters: str) -> np.ndarray:
    """A line a rater, a character a unit; a dot where there is no rating."""
    return np.array([[math.nan if c == "." else float(c) for c in row] for row in raters])


FOUR = matrix("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
WORKED = matrix("113", "123")


@pytest.mark.parametrize(
    ("level", "alpha"),
    [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)],
)
def test_published_example_of_four_raters_and_gaps(level: Any, alpha: float) -> None:
    # Krippendorff (2011), sections C and D
    assert krippendorff_alpha(FOUR, level) == pytest.approx(alpha, abs=5e-4)


def test_published_examples_of_two_raters() -> None:
    # Krippendorff (2011), sections A and B
    binary = matrix("0100000010", "1110010000")
    assert krippendorff_alpha(binary, "nominal") == pytest.approx(0.095, abs=5e-4)
    nominal = matrix("112243335441", "212223335444")
    assert krippendorff_alpha(nominal, "nominal") == pytest.approx(0.692, abs=5e-4)


@pytest.mark.parametrize(
    ("level", "alpha"),
    # coincidences: 2 of (1, 1), 1 each of (1, 2) and (2, 1), 2 of (3, 3)
    [
        ("nominal", 1 - 5 * 2 / 22),
        ("ordinal", 1 - 5 * 8 / 180),
        ("interval", 1 - 5 * 2 / 58),
    ],
)
def test_worked_by_hand(level: Any, alpha: float) -> None:
    assert krippendorff_alpha(WORKED, level) == pytest.approx(alpha, abs=1e-12)


def test_where_agreement_is_not_defined() -> None:
    assert krippendorff_alpha(matrix("222", "222")) is None
    assert krippendorff_alpha(matrix("1.3", ".2.")) is None
    assert krippendorff_alpha(matrix("123")) is None
    assert krippendorff_alpha(matrix("...", "...")) is None
    assert krippendorff_alpha(np.zeros((2, 0))) is None
    assert krippendorff_alpha(matrix("1231", "1231")) == pytest.approx(1)
    with pytest.raises(UserError, match="did you mean 'ordinal'"):
        krippendorff_alpha(WORKED, "ordnal")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(LEVELS))
def test_names_of_raters_and_order_of_units_do_not_matter(data: st.DataObject, level: Any) -> None:
    raters, units = data.draw(st.integers(2, 4)), data.draw(st.integers(1, 6))
    cells = st.sampled_from([1.0, 2.0, 3.0, math.nan])
    rows = st.lists(cells, min_size=raters * units, max_size=raters * units)
    ratings = np.array(data.draw(rows)).reshape(raters, units)
    found = krippendorff_alpha(ratings, level)
    other = krippendorff_alpha(ratings[::-1, ::-1], level)
    alone = np.full((raters, 1), math.nan)  # a unit with one rating says nothing of agreement
    alone[0] = 5
    third = krippendorff_alpha(np.hstack([ratings, alone]), level)
    if found is None:
        assert other is None
        assert third is None
    else:
        assert found <= 1 + 1e-12
        assert [other, third] == pytest.approx([found, found])


# --- tests ----------------------------------------------------------------------------------


def test_paired_test_worked_by_hand() -> None:
    # differences 1, 2, 3: t = 2 / (1 / √3); with 2 degrees of freedom p has a closed form
    found = paired_test("fluency", "a", "b", np.array([2.0, 4, 4]), np.array([1.0, 2, 1]))
    t = 2 * math.sqrt(3)
    assert (found.pairs, found.df, found.difference) == (3, 2, 2.0)
    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx((1 - t / math.sqrt(t**2 + 2)) / 2)
    other = paired_test("fluency", "b", "a", np.array([1.0, 2, 1]), np.array([2.0, 4, 4]))
    assert found.p is not None
    assert other.p == pytest.approx(1 - found.p)


@pytest.mark.parametrize(
    ("higher", "lower", "reason"),
    [
        ([], [], "no pairs"),
        ([2.0], [1.0], "fewer than 2 pairs"),
        ([2.0, 3.0], [1.0, 2.0], "all differences are equal"),
        ([1 / 3, 1.0], [1 / 3, 1.0], "all differences are equal"),
    ],
)
def test_no_test_has_a_reason(higher: list[float], lower: list[float], reason: str) -> None:
    found = paired_test("fluency", "a", "b", np.array(higher), np.array(lower))
    assert (found.t, found.df, found.p) == (None, None, None)
    assert found.reason == reason


def test_holm_worked_by_hand() -> None:
    tests = [PairedTest("c", "a", "b", 9, p=p) for p in (0.03, 0.01, None, 0.04, 0.9)]
    corrected = [test.p_holm for test in holm_corrected(tests)]
    # sorted: 4 · 0.01, 3 · 0.03, then 2 · 0.04 would be smaller than what is before it
    assert corrected == [pytest.approx(p) for p in (0.09, 0.04, None, 0.09, 0.9)]
    assert [test.p for test in holm_corrected(tests)] == [test.p for test in tests]
