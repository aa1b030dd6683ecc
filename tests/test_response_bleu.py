"""BLEU of responses: NLTK is the oracle of one score, paper and pencil of what becomes of them."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction
from nltk.translate.bleu_score import sentence_bleu as nltk_bleu
from sacrebleu.metrics.bleu import BLEU

from uncollapse.errors import UserError
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.responses import bleu
from uncollapse.evaluation.responses.bleu import (
    response_bleu,
    response_bleu_sacre,
    response_bleu_wae,
    sentence_bleu,
)
from uncollapse.evaluation.responses.sets import ResponseSets

SENTENCES = st.lists(st.sampled_from("abcd"), max_size=9)
GROUPS = st.lists(SENTENCES, min_size=1, max_size=3)
SETS = st.lists(st.tuples(GROUPS, GROUPS), min_size=1, max_size=4).map(
    lambda contexts: ResponseSets([c[0] for c in contexts], [c[1] for c in contexts])
)
WEIGHTS = [(1 / n,) * n + (0,) * more for n in range(1, 5) for more in range(5 - n)]


def number(metric: Metric) -> float:
    assert metric.value is not None
    return metric.value


def oracle(hypothesis: list[str], references: list[list[str]], weights: tuple) -> float:
    smoothing = SmoothingFunction().method7
    score: Any = nltk_bleu(references, hypothesis, weights, smoothing_function=smoothing)
    return float(score)


def words(*texts: str) -> list[list[str]]:
    return [text.split() for text in texts]


def random_sets(contexts: int, samples: int, references: int, seed: int = 0) -> ResponseSets:
    draw = random.Random(seed)

    def group(size: int) -> list[list[str]]:
        return [draw.choices("abcdef", k=draw.randint(0, 8)) for _ in range(size)]

    sizes = range(contexts)
    return ResponseSets([group(samples) for _ in sizes], [group(references) for _ in sizes])


class TestOneSentence:
    @settings(max_examples=300, deadline=None)
    @given(SENTENCES, GROUPS)
    def test_is_that_of_nltk(self, hypothesis: list[str], references: list[list[str]]) -> None:
        for weights in WEIGHTS:
            expected = oracle(hypothesis, references, weights)
            assert sentence_bleu(hypothesis, references, weights) == pytest.approx(
                expected, rel=1e-12, abs=1e-12
            )

    @pytest.mark.parametrize("n", [1, 2, 3, 4])
    @pytest.mark.parametrize(
        ("hypothesis", "references"),
        [
            ("", ["a b"]),  # empty response
            ("a b", [""]),  # empty reference
            ("", [""]),
            ("a", ["a"]),  # ln 1 = 0: method 4 leaves an order without a match at 0
            ("a", ["a b c d e f"]),
            ("a b", ["a b c"]),  # shorter than n
            ("x y z", ["a b c"]),  # no match
            ("a b c", ["a b c d", "a b"]),  # two equally close: the shorter one counts
            ("a a a a", ["a", "a a"]),  # clipped at the most in any reference
            ("a b c d e f", ["a b c d e f"]),
        ],
    )
    def test_is_that_of_nltk_at_the_edges(
        self, n: int, hypothesis: str, references: list[str]
    ) -> None:
        weights = (1 / n,) * n
        found = sentence_bleu(hypothesis.split(), words(*references), weights)
        assert found == pytest.approx(oracle(hypothesis.split(), words(*references), weights))

    def test_by_hand(self) -> None:
        # "a x" against "a b": p1 = 1/2; the 2-gram has no match, ln 2 / (2 · 5) of one 2-gram.
        # Method 5: (p1 + 1 + p1 + p2) / 3. No brevity penalty.
        expected = (0.5 + 1 + 0.5 + math.log(2) / 10) / 3
        assert sentence_bleu(["a", "x"], [["a", "b"]], (1, 0)) == pytest.approx(expected)
        # "a b" against "a b c": p1 = p2 = 1, so (2 + 1 + 1) / 3, and the penalty exp(1 - 3/2)
        found = sentence_bleu(["a", "b"], [["a", "b", "c"]], (1, 0))
        assert found == pytest.approx(4 / 3 * math.exp(-0.5))
        # alone, order 1 is averaged with the 5-grams, of which there are none: (2 + 1 + 0) / 3
        found = sentence_bleu(["a", "b"], [["a", "b", "c"]], (1,))
        assert found == pytest.approx(math.exp(-0.5))

    @given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=9))
    def test_equal_to_its_reference_it_is_at_most_four_thirds(self, text: list[str]) -> None:
        for weights in WEIGHTS:
            found = sentence_bleu(text, [text], weights)
            assert found <= 4 / 3 + 1e-12
            if len(text) >= 5:  # p1 = … = p5 = 1: the means are 4/3, 10/9, …, all above 1
                assert found > 1


class TestManySentences:
    @settings(max_examples=60, deadline=None)
    @given(SETS)
    def test_pairs_are_those_of_nltk(self, sets: ResponseSets) -> None:
        found = response_bleu(sets)
        for n in range(1, 5):
            weights = (1 / n,) * n + (0,) * (4 - n)
            check_against_oracle(sets, weights, found, f"bleu_{n}_{{}}")

    @settings(max_examples=30, deadline=None)
    @given(SETS)
    def test_wae_counts_the_end_as_a_word(self, sets: ResponseSets) -> None:
        ended = ResponseSets(
            [[[*text, "</s>"] for text in group] for group in sets.hypotheses],
            [[[*text, "</s>"] for text in group] for group in sets.references],
        )
        check_against_oracle(ended, (1 / 3,) * 3, response_bleu_wae(sets), "bleu_{}_wae")

    def test_by_hand(self) -> None:
        # BLEU-1 of "a" against "a": (p1 + 1 + p1 + p2) / 3 = (1 + 1 + 1 + 0) / 3 = 1.
        sets = ResponseSets([words("a", "b"), words("a", "a")], [words("a"), words("a", "b")])
        found = response_bleu(sets)
        # Samples: 1, 0 in the first context; the best reference gives 1, 1 in the second.
        precision = found["bleu_1_precision"]
        assert number(precision) == pytest.approx((0.5 + 1) / 2)
        # standard deviation of (0.5, 1) is 0.5 / √2, by √2
        assert precision.standard_error == pytest.approx(0.25)
        # References: the best sample gives 1 in the first context, 1 and 0 in the second.
        recall = found["bleu_1_recall"]
        assert number(recall) == pytest.approx((1 + 0.5) / 2)
        f1 = found["bleu_1_f1"]
        assert number(f1) == pytest.approx(0.75)
        # p = r: F1 moves by half of both, which is 0.75 in each context
        assert f1.standard_error == pytest.approx(0, abs=1e-12)
        assert {metric.samples for metric in found.values()} == {2}
        assert "2 samples and 1 to 2 references a context" in recall.estimator
        assert "delta method" in f1.estimator

    def test_f1_is_of_the_corpus_means(self) -> None:
        # precision 1/2 and 1, recall 1 and 1; not the mean of 2/3 and 1
        sets = ResponseSets([words("a", "b"), words("a")], [words("a"), words("a")])
        f1 = number(response_bleu(sets)["bleu_1_f1"])
        assert f1 == pytest.approx(2 * 0.75 / 1.75)

    def test_f1_error_is_that_of_the_jackknife(self) -> None:
        sets = random_sets(300, 3, 2)
        metric = response_bleu(sets)["bleu_2_f1"]
        pairs = sets.pairs()
        scores = np.array(
            [
                sentence_bleu(text, [reference], (0.5, 0.5, 0, 0))
                for group, references in zip(sets.hypotheses, sets.references, strict=True)
                for text in group
                for reference in references
            ]
        )
        p, r = pairs.precision(scores), pairs.recall(scores)
        p, r = (p.sum() - p) / 299, (r.sum() - r) / 299
        left_out = 2 * p * r / (p + r)
        jackknife = math.sqrt(299 / 300 * np.square(left_out - left_out.mean()).sum())
        assert metric.standard_error == pytest.approx(jackknife, rel=0.01)

    def test_nothing_in_common_is_zero(self) -> None:
        found = response_bleu(ResponseSets([words("a"), words("")], [words("b"), words("b")]))
        assert {number(metric) for metric in found.values()} == {0}

    def test_one_context_has_no_error(self) -> None:
        sets = ResponseSets([words("a b")], [words("a b")])
        found = response_bleu(sets) | response_bleu_wae(sets) | response_bleu_sacre(sets)
        assert {metric.standard_error for metric in found.values()} == {None}

    def test_blocks_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sets = random_sets(7, 3, 2)
        whole = response_bleu(sets)
        monkeypatch.setattr(bleu, "CONTEXTS_AT_ONCE", 2)
        for name, metric in response_bleu(sets).items():
            assert number(metric) == pytest.approx(number(whole[name]), rel=1e-12)

    @settings(max_examples=30, deadline=None)
    @given(SETS, st.randoms(use_true_random=False))
    def test_order_of_samples_does_not_matter(
        self, sets: ResponseSets, draw: random.Random
    ) -> None:
        groups = [draw.sample(group, len(group)) for group in sets.hypotheses]
        other = replace(sets, hypotheses=groups)
        for measure in (response_bleu, response_bleu_wae):
            shuffled = measure(other)
            for name, metric in measure(sets).items():
                assert number(shuffled[name]) == pytest.approx(number(metric), rel=1e-12)

    @settings(max_examples=30, deadline=None)
    @given(SETS)
    def test_recall_is_no_less_than_precision_with_one_reference(self, sets: ResponseSets) -> None:
        one = replace(sets, references=[group[:1] for group in sets.references])
        found = response_bleu(one) | response_bleu_wae(one)
        for name in found:
            if "recall" in name:
                precision = number(found[name.replace("recall", "precision")])
                assert number(found[name]) >= precision - 1e-12


def check_against_oracle(
    sets: ResponseSets, weights: tuple, found: dict[str, Metric], name: str
) -> None:
    precisions, recalls = [], []
    for group, references in zip(sets.hypotheses, sets.references, strict=True):
        scores = np.array([[oracle(h, [r], weights) for r in references] for h in group])
        precisions.append(scores.max(1).mean())
        recalls.append(scores.max(0).mean())
    p, r = np.mean(precisions), np.mean(recalls)
    f1 = 2 * p * r / (p + r) if p + r else 0
    for rule, expected in (("precision", p), ("recall", r), ("f1", f1)):
        assert number(found[name.format(rule)]) == pytest.approx(expected, rel=1e-12, abs=1e-12)


class TestSacre:
    def test_is_the_corpus_bleu_of_first_samples(self) -> None:
        sets = random_sets(50, 2, 3)
        outputs = [" ".join(group[0]) for group in sets.hypotheses]
        streams = [[" ".join(group[i]) for group in sets.references] for i in range(3)]
        scorer = BLEU(tokenize="none", force=True)
        expected = scorer.corpus_score(outputs, streams).score
        metric = response_bleu_sacre(sets)["bleu_sacre"]
        assert number(metric) == pytest.approx(expected)
        assert str(scorer.get_signature()) in metric.estimator
        assert metric.standard_error is not None
        assert metric.standard_error > 0

    def test_of_what_people_said_is_100(self) -> None:
        sets = ResponseSets([words("a b c d e", "x")] * 3, [words("a b c d e")] * 3)
        metric = response_bleu_sacre(sets)["bleu_sacre"]
        assert number(metric) == pytest.approx(100)
        assert metric.standard_error == pytest.approx(0, abs=1e-9)

    def test_numbers_of_references_may_differ(self) -> None:
        sets = ResponseSets([words("a b"), words("c")], [words("a b", "c"), words("c")])
        assert "nrefs:var" in response_bleu_sacre(sets)["bleu_sacre"].estimator


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], "there are no contexts to compare responses of"),
        ([[["a"]]], [], "1 contexts have samples, but 0 have references"),
        ([[["a"]], []], [[["a"]], [["a"]]], "context 2 has no sample"),
        ([[["a"]]], [[]], "context 1 has no reference"),
    ],
)
def test_sets_must_be_whole(hypotheses: list, references: list, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        ResponseSets(hypotheses, references)
