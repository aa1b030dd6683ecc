"""Similarity by word vectors, in two dimensions where the angles are known."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uncollapse.data.vectors import Vectors
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.responses.embeddings import (
    response_embeddings,
    response_embeddings_wae,
)
from uncollapse.evaluation.responses.sets import ResponseSets

PLANE = Vectors(
    {"a": 0, "b": 1, "c": 2, "nowhere": 3, "</s>": 4},
    np.array([[1, 0], [0, 1], [-2, 0], [0, 0], [0, -1]], np.float32),
    "the plane",
)
SPACE = Vectors(
    {word: row for row, word in enumerate("abcdef")},
    np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32),
    "random",
)
SENTENCES = st.lists(st.sampled_from("abcdefxy"), max_size=7)  # x and y have no vector
GROUPS = st.lists(SENTENCES, min_size=1, max_size=3)
SETS = st.lists(st.tuples(GROUPS, GROUPS), min_size=1, max_size=4).map(
    lambda contexts: ResponseSets([c[0] for c in contexts], [c[1] for c in contexts])
)
ROOT = math.sqrt(0.5)


def number(metric: Metric) -> float:
    assert metric.value is not None
    return metric.value


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def one(hypothesis: str, reference: str) -> ResponseSets:
    return ResponseSets([words(hypothesis)], [words(reference)])


class TestHonest:
    @pytest.mark.parametrize(
        ("hypothesis", "reference", "average", "extrema", "greedy"),
        [
            # means (½, ½) and (1, 0): 45°. Extrema (1, 1) and (1, 0): 45°.
            # Greedy: (cos aa + cos ba) / 2 = ½ one way, 1 the other.
            ("a b", "a", ROOT, ROOT, 0.75),
            # mean (-½, 0); extrema (-2, 0), as |-2| > 1; greedy (1 - 1) / 2 and 1
            ("a c", "a", -1, -1, 0.5),
            # mean (-1, ½); extrema (-2, 1); greedy: cos cb = 0 and cos bb = 1 give ½, back 1
            ("c b", "b", math.sqrt(0.2), math.sqrt(0.2), 0.75),
            # a word without a vector, and one whose vector points nowhere, leave no trace
            ("a unheard-of nowhere", "a", 1, 1, 1),
        ],
    )
    def test_by_hand(
        self, hypothesis: str, reference: str, average: float, extrema: float, greedy: float
    ) -> None:
        found = response_embeddings(one(hypothesis, reference), PLANE)
        assert number(found["embedding_average"]) == pytest.approx(average)
        assert number(found["embedding_extrema"]) == pytest.approx(extrema)
        assert number(found["embedding_greedy"]) == pytest.approx(greedy)
        cvae = number(found["embedding_average_cvae_precision"])
        assert cvae == pytest.approx((1 + average) / 2)
        cvae = number(found["embedding_extrema_cvae_recall"])
        assert cvae == pytest.approx((1 + extrema) / 2)

    def test_precision_and_recall(self) -> None:
        sets = ResponseSets([words("a", "b")], [words("a", "c")])
        found = response_embeddings(sets, PLANE)
        # cosines: a with a 1, with c -1; b with both 0
        assert number(found["embedding_average"]) == pytest.approx((1 + 0) / 2)
        assert number(found["embedding_average_recall"]) == pytest.approx((1 + 0) / 2)
        precision = number(found["embedding_average_cvae_precision"])
        assert precision == pytest.approx((1 + 0.5) / 2)

    def test_pairs_without_a_known_word_are_left_out(self) -> None:
        sets = ResponseSets(
            [words("a", "unheard-of"), words(""), words("b")],
            [words("a"), words("a"), words("a")],
        )
        metric = response_embeddings(sets, PLANE)["embedding_greedy"]
        # first context: 1 from its first sample alone; second: no figure; third: 0
        assert number(metric) == pytest.approx(0.5)
        # standard deviation of (1, 0) is 1 / √2, by √2
        assert metric.standard_error == pytest.approx(0.5)
        assert "2 of 4 pairs without a figure" in metric.estimator
        assert "mean over 2 contexts (1 more have no figure)" in metric.estimator
        assert "vectors: the plane" in metric.estimator
        assert "16.67% of words, which have no vector, left out" in metric.estimator
        assert metric.samples == 3

    def test_no_known_word_is_no_figure(self) -> None:
        found = response_embeddings(one("unheard-of", "a"), PLANE)
        assert {metric.value for metric in found.values()} == {None}
        assert all("none" in metric.estimator for metric in found.values())

    def test_vectors_without_words(self) -> None:
        empty = Vectors({}, np.zeros((0, 2), np.float32), "nothing")
        found = response_embeddings(one("a", "a"), empty)
        assert {metric.value for metric in found.values()} == {None}

    @settings(max_examples=40, deadline=None)
    @given(SETS)
    def test_pair_by_pair(self, sets: ResponseSets) -> None:
        found = response_embeddings(sets, SPACE)
        for name, similarity in (("average", average), ("extrema", extrema), ("greedy", greedy)):
            precisions, recalls = [], []
            for group, references in zip(sets.hypotheses, sets.references, strict=True):
                ours = [known for text in group if len(known := look_up(text))]
                theirs = [known for text in references if len(known := look_up(text))]
                if ours and theirs:
                    cosines = np.array([[similarity(h, r) for r in theirs] for h in ours])
                    precisions.append(cosines.max(1).mean())
                    recalls.append(cosines.max(0).mean())
            if precisions:
                assert number(found[f"embedding_{name}"]) == pytest.approx(np.mean(precisions))
                recall = number(found[f"embedding_{name}_recall"])
                assert recall == pytest.approx(np.mean(recalls))
            else:
                assert found[f"embedding_{name}"].value is None


class TestWae:
    def test_by_hand(self) -> None:
        found = response_embeddings_wae(one("a", "b"), PLANE)
        assert number(found["embedding_average_wae"]) == pytest.approx(0)
        # </s> is (0, -1). a: maximum of (1, 0) and 0, minimum of (1, 0) and (1, 0): (1, 0).
        # b: maximum of (0, 1) and 0, minimum of (0, 1) and (1, 0): (0, 1) and (0, 0): (0, 1).
        assert number(found["embedding_extrema_wae"]) == pytest.approx(0)
        # a and 39 </s> against b and </s>. From the first: 0 once, 1 of </s> 39 times.
        # From the second: 0 of b (cos ba = 0, cos b</s> = -1), 1 of </s>.
        expected = (39 / 40 + 1 / 2) / 2
        assert number(found["embedding_greedy_wae"]) == pytest.approx(expected)

    def test_masked_places_join_the_extrema(self) -> None:
        # c: maximum of (-2, 0) and 0, minimum of (-2, 0) and (1, 0): |-2| > 0, so (-2, 0).
        # "c b": maximum (0, 1), minimum (-2, 0): (-2, 1).
        found = response_embeddings_wae(one("c", "c b"), PLANE)
        assert number(found["embedding_extrema_wae"]) == pytest.approx(2 / math.sqrt(5))
        # </s> at (-9, 5): the minimum of c and (-8, 6) is (-8, 0), with and without b
        far = replace(PLANE, matrix=np.array([*PLANE.matrix[:4], [-9, 5]], np.float32))
        found = response_embeddings_wae(one("c", "c b"), far)
        assert number(found["embedding_extrema_wae"]) == pytest.approx(8 / math.sqrt(65))

    def test_40_words_leave_no_place_to_mask(self) -> None:
        # </s> plus 1 is (-8, -4), and so are the extrema of "c b"; those of c alone are (-2, 0)
        far = replace(PLANE, matrix=np.array([*PLANE.matrix[:4], [-9, -5]], np.float32))
        found = response_embeddings_wae(one("c " * 40, "c b"), far)
        assert number(found["embedding_extrema_wae"]) == pytest.approx(8 / math.sqrt(80))
        found = response_embeddings_wae(one("c " * 39, "c b"), far)
        assert number(found["embedding_extrema_wae"]) == pytest.approx(1)

    def test_best_sample_counts(self) -> None:
        sets = ResponseSets([words("b", "a", "c")], [words("a")])
        assert number(response_embeddings_wae(sets, PLANE)["embedding_average_wae"]) == 1

    def test_empty_response_has_average_0(self) -> None:
        found = response_embeddings_wae(one("", "a"), PLANE)
        assert number(found["embedding_average_wae"]) == 0
        # </s> 40 times against a and </s>: 1, and (0 + 1) / 2
        assert number(found["embedding_greedy_wae"]) == pytest.approx(0.75)

    def test_a_vector_of_zeros_has_cosine_0(self) -> None:
        found = response_embeddings_wae(one("nowhere", "a"), PLANE)
        assert number(found["embedding_average_wae"]) == 0
        # 0 and 39 times 1 of </s>, against 0 of a and 1 of </s>
        assert number(found["embedding_greedy_wae"]) == pytest.approx((39 / 40 + 1 / 2) / 2)

    def test_words_after_the_40th_do_not_count(self) -> None:
        long = one("a " * 40 + "b " * 9, "a " * 39 + "b " * 9)
        found = response_embeddings_wae(long, PLANE)
        assert number(found["embedding_average_wae"]) == pytest.approx(1)
        # a 40 times against a 39 times and </s>: 1, and 39/40 as cos a</s> = 0
        assert number(found["embedding_greedy_wae"]) == pytest.approx((1 + 39 / 40) / 2)

    def test_unknown_words_have_a_vector_of_their_own(self) -> None:
        same = response_embeddings_wae(one("x", "x"), SPACE)
        assert number(same["embedding_average_wae"]) == pytest.approx(1)
        other = response_embeddings_wae(one("x", "y"), SPACE)["embedding_average_wae"]
        assert abs(number(other)) < 1
        # whatever else is there, and however often it is asked
        sets = ResponseSets([words("x"), words("b a")], [words("y"), words("x y")])
        again = response_embeddings_wae(sets, SPACE)["embedding_average_wae"]
        part = response_embeddings_wae(one("b a", "x y"), SPACE)["embedding_average_wae"]
        assert number(again) == pytest.approx((number(other) + number(part)) / 2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=7))
def test_a_response_equal_to_its_reference_has_cosine_1(text: list[str]) -> None:
    sets = ResponseSets([[text]], [[text]])
    found = response_embeddings(sets, SPACE)
    found |= response_embeddings_wae(sets, SPACE)
    for metric in found.values():
        assert number(metric) == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(SETS, st.randoms(use_true_random=False))
def test_order_of_samples_does_not_matter(sets: ResponseSets, draw: random.Random) -> None:
    other = replace(sets, hypotheses=[draw.sample(g, len(g)) for g in sets.hypotheses])
    for measure in (response_embeddings, response_embeddings_wae):
        shuffled = measure(other, SPACE)
        for name, metric in measure(sets, SPACE).items():
            assert shuffled[name].value == pytest.approx(metric.value)


@settings(max_examples=40, deadline=None)
@given(SETS)
def test_recall_is_no_less_than_precision_with_one_reference(sets: ResponseSets) -> None:
    found = response_embeddings(
        replace(sets, references=[group[:1] for group in sets.references]), SPACE
    )
    for name in ("average", "extrema", "greedy"):
        precision, recall = found[f"embedding_{name}"], found[f"embedding_{name}_recall"]
        if precision.value is not None:
            assert number(recall) >= number(precision) - 1e-12


# --- one pair at a time -----------------------------------------------------------------------


def look_up(text: list[str]) -> np.ndarray:
    rows = [SPACE.matrix[SPACE.words[word]] for word in text if word in SPACE.words]
    return np.array(rows, np.float64)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def average(ours: np.ndarray, theirs: np.ndarray) -> float:
    return cosine(ours.sum(0), theirs.sum(0))


def extrema(ours: np.ndarray, theirs: np.ndarray) -> float:
    picked = [[max(column, key=abs) for column in side.T] for side in (ours, theirs)]
    return cosine(np.array(picked[0]), np.array(picked[1]))


def greedy(ours: np.ndarray, theirs: np.ndarray) -> float:
    one_way = np.mean([max(cosine(word, other) for other in theirs) for word in ours])
    back = np.mean([max(cosine(word, other) for other in ours) for word in theirs])
    return float(one_way + back) / 2
