"""What ratings come to, worked by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rating_support import Fake, fill, make, rows_of, write_rows

from uncollapse.errors import UserError
from uncollapse.rating import score
from uncollapse.rating.key import read_key
from uncollapse.rating.sheet import NOT_ASKED


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return make(tmp_path / "study")


def worked(tmp_path: Path, **how: Any) -> tuple[Path, list[Path]]:
    """Three contexts, two raters; ratings by system, rater and context as in `RATINGS`."""
    study = make(tmp_path / "worked", contexts=3, raters=2, criteria=["fluency"], scale=4, **how)
    return study, [
        fill(study, rater, lambda item, _, r=rater: RATINGS[item.system][r - 1][item.unit])
        for rater in (1, 2)
    ]


RATINGS = {"bn-cvae": [[3, 4, 4], [3, 4, 3]], "plain-cvae": [[2, 2, 1], [2, 3, 1]]}


def test_scores_worked_by_hand(tmp_path: Path) -> None:
    found = score(*worked(tmp_path), accept=3, baseline="plain-cvae")
    assert (found.raters, found.of_raters, found.holes) == (2, 2, 0)
    assert (found.accept, found.high, found.baseline) == (3, 4, "plain-cvae")
    high, low = found.figures
    assert (high.system, high.ratings, high.accepted, high.high) == ("bn-cvae", 6, 1.0, 0.5)
    assert high.mean == 3.5
    assert high.variance == pytest.approx(6 * 0.25 / 5)
    # means of contexts 3, 4, 3.5: standard deviation 0.5
    assert high.standard_error == pytest.approx(0.5 / math.sqrt(3))
    assert (low.mean, low.accepted, low.high) == (pytest.approx(11 / 6), pytest.approx(1 / 6), 0)
    [test] = found.tests
    # differences 1, 1.5, 2.5
    assert (test.system, test.baseline, test.pairs, test.df) == ("bn-cvae", "plain-cvae", 3, 2)
    assert test.difference == pytest.approx(5 / 3)
    t = (5 / 3) / (math.sqrt(7 / 12) / math.sqrt(3))
    assert test.t == pytest.approx(t)
    assert test.p == test.p_holm == pytest.approx((1 - t / math.sqrt(t**2 + 2)) / 2)
    # all items of both systems: two raters differ twice, by 1
    [agreement] = score(*read_again(tmp_path), level="interval").agreement
    values = [3, 3, 4, 4, 4, 3, 2, 2, 2, 3, 1, 1]
    expected = sum((a - b) ** 2 for a in values for b in values)
    assert agreement.alpha == pytest.approx(1 - 11 * 4 / expected)
    assert (agreement.items, agreement.level) == (6, "interval")


def read_again(tmp_path: Path) -> tuple[Path, list[Path]]:
    return tmp_path / "worked", sorted((tmp_path / "worked").glob("filled-*.csv"))


def test_every_ordered_pair_without_a_baseline(tmp_path: Path) -> None:
    found = score(*worked(tmp_path))
    assert [(test.system, test.baseline) for test in found.tests] == [
        ("plain-cvae", "bn-cvae"),
        ("bn-cvae", "plain-cvae"),
    ]
    below, above = found.tests
    assert above.p is not None
    assert below.p == pytest.approx(1 - above.p)
    assert above.p_holm == pytest.approx(2 * above.p)
    text = found.to_text()
    assert "bn-cvae > plain-cvae" in text
    assert "fluency  (Krippendorff's α" in text
    assert len({line.index("pairs") for line in text.splitlines() if "pairs" in line}) == 1


def test_holes_are_counted_where_they_are_allowed(tmp_path: Path) -> None:
    study, sheets = worked(tmp_path)
    head, *rows = rows_of(sheets[0])
    key = read_key(study)
    for row in rows:
        item = key.items[key.sheets[0][row[0]]]
        if (item.system, item.unit) == ("bn-cvae", 0):
            row[3] = ""
    write_rows(sheets[0], [head, *rows])
    with pytest.raises(UserError, match="--allow-holes"):
        score(study, sheets)
    found = score(study, sheets, allow_holes=True)
    assert found.holes == 1
    assert found.figures[0].ratings == 5
    assert found.figures[0].mean == pytest.approx(18 / 5)
    assert {test.pairs for test in found.tests} == {3}  # the other rater has rated it
    alone = score(study, sheets[:1], allow_holes=True)
    assert {test.pairs for test in alone.tests} == {2}
    assert (alone.raters, alone.of_raters) == (1, 2)
    assert alone.agreement[0].alpha is None
    assert alone.agreement[0].reason == "no item has two ratings"
    assert "α –: no item has two ratings" in alone.to_text()


def test_no_figures_without_ratings(tmp_path: Path) -> None:
    study = make(tmp_path / "study", contexts=1, criteria=["quality"])
    sheet = fill(study, 1, lambda item, _: "" if item.system == "bn-cvae" else 3)
    found = score(study, [sheet], allow_holes=True)
    none, one = found.figures
    assert (none.ratings, none.mean, none.high) == (0, None, None)
    assert (one.ratings, one.mean, one.variance, one.standard_error) == (1, 3.0, None, None)
    assert {test.reason for test in found.tests} == {"no pairs"}
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["holes"] == 1
    assert "–" in found.to_text()


def test_groups_are_scored_apart_and_paired_by_their_contexts(tmp_path: Path) -> None:
    systems = {"many": Fake(), "few": Fake(actions=2)}
    criteria = ["quality", "consistency"]
    study = make(tmp_path / "study", systems, criteria=criteria, actions=3, scale=5)
    sheet = fill(study, 1, lambda item, name: 1 + item.unit if name == "consistency" else 5)
    found = score(study, [sheet], baseline="few")
    assert (found.accept, found.high) == (3, 5)
    means = {(f.criterion, f.system): (f.mean, f.ratings) for f in found.figures}
    assert means == {
        ("quality", "many"): (5, 6),
        ("quality", "few"): (5, 6),
        ("consistency", "many"): (2, 3),
        ("consistency", "few"): (1.5, 2),
    }
    assert [test.pairs for test in found.tests] == [6, 2]
    assert {test.reason for test in found.tests} == {"all differences are equal"}
    rows = rows_of(sheet)
    place = next(n for n, row in enumerate(rows) if row[3] == NOT_ASKED)
    rows[place][3] = "2"
    with pytest.raises(UserError, match="quality is not asked of this item, but is '2'"):
        score(study, [write_rows(sheet, rows)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accept": 4}, "accept must be 1 … 3, the scale of the study, not 4"),
        ({"high": 0}, "high must be 1 … 3"),
        ({"accept": 3, "high": 2}, "accept, 3, must not be above high, 2"),
        ({"baseline": "plan-cvae"}, "unknown system 'plan-cvae'; did you mean 'plain-cvae'?"),
        ({"level": "ordnal"}, "did you mean 'ordinal'?"),
    ],
)
def test_bad_questions(study: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        score(study, [fill(study, 1, lambda *_: 2)], **change)


def test_baseline_may_be_a_run_folder(study: Path, tmp_path: Path) -> None:
    known = json.loads((study / "key.json").read_text(encoding="utf-8"))
    known["systems"]["plain-cvae"] = str(tmp_path / "runs" / "plain-cvae")
    (study / "key.json").write_text(json.dumps(known), encoding="utf-8")
    sheet = fill(study, 1, lambda *_: 2)
    baseline = tmp_path / "runs" / ".." / "runs" / "plain-cvae"
    assert score(study, [sheet], baseline=baseline).baseline == "plain-cvae"
