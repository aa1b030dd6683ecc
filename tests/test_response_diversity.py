"""How much responses repeat, counted by hand."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.responses.diversity import frequent_responses, response_diversity
from uncollapse.evaluation.responses.sets import ResponseSets

GROUPS = st.lists(st.lists(st.sampled_from("abc"), max_size=5), min_size=1, max_size=4)


def number(metric: Metric) -> float:
    assert metric.value is not None
    return metric.value


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def sets_of(*groups: list[list[str]]) -> ResponseSets:
    return ResponseSets(list(groups), [words("a")] * len(groups))


def test_by_hand() -> None:
    sets = sets_of(words("a a b", "a"), words("", "b b b b"))
    found = response_diversity(sets)
    # "a a b" 2/3, "a" 1/1, "b b b b" 1/4; the empty response has no word
    assert number(found["distinct_1_intra"]) == pytest.approx((2 / 3 + 1 + 1 / 4) / 3)
    # "a a", "a b": 2/2; "b b" three times: 1/3; "a" has no pair of words
    assert number(found["distinct_2_intra"]) == pytest.approx((1 + 1 / 3) / 2)
    # a, b among 4 words; b among 4
    assert number(found["distinct_1_inter"]) == pytest.approx((2 / 4 + 1 / 4) / 2)
    # 2 of 2 and 1 of 3 pairs
    assert number(found["distinct_2_inter"]) == pytest.approx((1 + 1 / 3) / 2)
    assert number(found["response_length"]) == pytest.approx((3 + 1 + 0 + 4) / 4)
    assert number(found["unique_share"]) == 1
    assert "generic_share" not in found
    # inter: standard deviation of (1/2, 1/4) is 1/4 / √2, by √2
    assert found["distinct_1_inter"].standard_error == pytest.approx(1 / 8)
    assert {metric.samples for metric in found.values()} == {2}
    assert "mean over 3 responses to 2 contexts" in found["distinct_1_intra"].estimator
    assert "2 samples and 1 reference a context" in found["distinct_1_inter"].estimator


def test_error_is_over_contexts() -> None:
    # two contexts of two equal responses each: 2 and 4 words; as many independent responses
    # would give a smaller error. (2, 4) has standard deviation √2, by √2.
    found = response_diversity(sets_of(words("a b", "a b"), words("a b c d", "a b c d")))
    assert found["response_length"].standard_error == pytest.approx(1)


def test_a_context_without_ngrams_is_left_out() -> None:
    metric = response_diversity(sets_of(words("a"), words("a b")))["distinct_2_inter"]
    assert number(metric) == 1
    assert "mean over 1 contexts (1 more have no figure)" in metric.estimator


def test_nothing_to_count_is_no_figure() -> None:
    found = response_diversity(sets_of(words("", "")))
    for name in ("distinct_1_intra", "distinct_2_intra", "distinct_1_inter", "distinct_2_inter"):
        assert found[name].value is None
    assert number(found["response_length"]) == 0
    assert number(found["unique_share"]) == 0.5


def test_unique_share() -> None:
    found = response_diversity(sets_of(words("a", "a", "b", "a"), words("a", "b", "b a", "a b")))
    assert number(found["unique_share"]) == pytest.approx((2 / 4 + 4 / 4) / 2)


def test_generic_share_sees_neither_case_nor_punctuation() -> None:
    sets = sets_of(words("I don't know .", "i do not know"), words("Yes !", ". . ."))
    found = response_diversity(sets, words("i don't know", "yes .", "!"))
    # the first of each context; what is punctuation alone is never generic
    assert number(found["generic_share"]) == pytest.approx(2 / 4)
    assert "the 2 most frequent" in found["generic_share"].estimator


def test_frequent_responses() -> None:
    training = words("Yes .", "no", "yes", "No !", "well", ". .", ". .", ". .", "yes ?")
    assert frequent_responses(training, 2) == [["yes"], ["no"]]
    # "no" and "well" are ranked by how often, ties by spelling
    assert frequent_responses([*training, ["well"]], 5) == [["yes"], ["no"], ["well"]]
    assert len(frequent_responses([[str(i)] for i in range(50)])) == 20


@given(st.lists(GROUPS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_order_of_samples_does_not_matter(
    groups: list[list[list[str]]], draw: random.Random
) -> None:
    sets = sets_of(*groups)
    other = replace(sets, hypotheses=[draw.sample(group, len(group)) for group in groups])
    shuffled = response_diversity(other, [["a"]])
    for name, metric in response_diversity(sets, [["a"]]).items():
        assert shuffled[name].value == pytest.approx(metric.value)
        if metric.value is not None and metric.unit == "share":
            assert 0 <= metric.value <= 1
            assert metric.standard_error is None or math.isfinite(metric.standard_error)
