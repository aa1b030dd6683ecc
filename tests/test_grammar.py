"""The embedded corpus: its probabilities, entropy and intents are exact."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uncollapse.data.grammar import Grammar, Sample, assistant_grammar, write_grammar
from uncollapse.errors import RunError, UserError

TINY = """
# two intents that share a slot
command = 3 <go> | <call>
go = 2 drive to <who> <when> | drive | <polite> drive
  home
call = 3 call <who> | call <who> and
  <who>
who = 2 anna | bob
when = 3 - | now | 2 at <who> time
polite = please
"""

AMBIGUOUS = """
command = <go>
go = <verb> <when> | <verb> <late>
verb = 3 drive | drive now
when = - | now
late = tomorrow
"""


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return assistant_grammar()


@pytest.fixture(scope="module")
def samples(grammar: Grammar) -> list[Sample]:
    return grammar.sample(20_000, 1)


def language(grammar: Grammar, symbol: str) -> list[tuple[str, float]]:
    """List every derivation of a symbol: its words and its probability."""
    found = []
    for production in grammar.rules[symbol]:
        parts = [
            language(grammar, item) if item in grammar.rules else [(item, 1.0)]
            for item in production.items
        ]
        for choice in product(*parts):
            text = " ".join(words for words, _ in choice if words)
            found.append((text, production.probability * math.prod(p for _, p in choice)))
    return found


def count_derivations(grammar: Grammar, start: str) -> int:
    @cache
    def count(item: str) -> int:
        if item not in grammar.rules:
            return 1
        return sum(math.prod(count(i) for i in p.items) for p in grammar.rules[item])

    return count(start)


def count_sentences(grammar: Grammar, start: str) -> int:
    """Count the distinct sentences by the paths of the grammar's deterministic automaton.

    A state is the set of all that may still follow, each as a sequence of items. The set forgets
    how many derivations led to it, so that the count is of sentences, not of derivations.
    """

    @cache
    def expand(rest: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
        if not rest or rest[0] not in grammar.rules:
            return frozenset([rest])
        productions = grammar.rules[rest[0]]
        return frozenset().union(*(expand((*p.items, *rest[1:])) for p in productions))

    @cache
    def count(state: frozenset[tuple[str, ...]]) -> int:
        after: dict[str, set[tuple[str, ...]]] = {}
        for rest in state:
            if rest:
                after.setdefault(rest[0], set()).update(expand(rest[1:]))
        return (() in state) + sum(count(frozenset(following)) for following in after.values())

    return count(expand((start,)))


def test_tiny_language_sums_to_one_and_gives_the_entropy() -> None:
    grammar = Grammar(TINY)
    sentences = dict(language(grammar, "<command>"))
    assert len(sentences) == count_derivations(grammar, "<command>") == 16
    assert sum(sentences.values()) == pytest.approx(1, abs=1e-12)
    entropy = -sum(p * math.log(p) for p in sentences.values())
    assert grammar.entropy() == pytest.approx(entropy, abs=1e-12)
    mean_length = sum(p * len(text.split()) for text, p in sentences.items())
    assert grammar.mean_length() == pytest.approx(mean_length, abs=1e-12)
    for text, p in sentences.items():
        assert grammar.log_prob(text) == pytest.approx(math.log(p), abs=1e-12)
    assert grammar.intent_entropy() == pytest.approx(
        -0.75 * math.log(0.75) - 0.25 * math.log(0.25), abs=1e-12
    )


def test_tiny_samples_follow_the_probabilities() -> None:
    grammar = Grammar(TINY)
    n = 20_000
    counts = Counter(sample.text for sample in grammar.sample(n, 0))
    for text, p in language(grammar, "<command>"):
        assert abs(counts[text] / n - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_ambiguity_is_counted_and_summed_over() -> None:
    grammar = Grammar(AMBIGUOUS)
    assert grammar.derivations("drive now") == 2
    assert grammar.derivations("drive now now") == 1
    assert grammar.log_prob("drive now") == pytest.approx(math.log(0.5 * (0.75 + 0.25) * 0.5))
    assert count_derivations(grammar, "<command>") == 6
    assert count_sentences(grammar, "<command>") == 5


def test_the_whole_language_is_unambiguous(grammar: Grammar) -> None:
    """As many sentences as derivations, counted exactly over the whole language."""
    derivations = count_derivations(grammar, "<assistant>")
    assert derivations > 10**8
    assert count_sentences(grammar, "<assistant>") == derivations


def test_sampled_and_parsed_probabilities_agree(grammar: Grammar, samples: list[Sample]) -> None:
    for sample in samples[:2_000]:
        assert grammar.derivations(sample.text) == 1
        assert grammar.log_prob(sample.text) == pytest.approx(sample.log_prob, abs=1e-9)
        assert grammar.intent(sample.text) == sample.label


def test_entropy_is_the_mean_of_minus_log_prob(grammar: Grammar, samples: list[Sample]) -> None:
    nlls = [-sample.log_prob for sample in samples]
    mean = sum(nlls) / len(nlls)
    error = math.sqrt(sum((x - mean) ** 2 for x in nlls) / (len(nlls) - 1) / len(nlls))
    assert abs(mean - grammar.entropy()) < 4 * error
    assert error < 0.05


def test_mean_length_is_that_of_the_samples(grammar: Grammar, samples: list[Sample]) -> None:
    lengths = [len(sample.text.split()) for sample in samples]
    mean = sum(lengths) / len(lengths)
    error = math.sqrt(sum((x - mean) ** 2 for x in lengths) / (len(lengths) - 1) / len(lengths))
    assert abs(mean - grammar.mean_length()) < 4 * error


def test_intents_split_the_entropy(grammar: Grammar, samples: list[Sample]) -> None:
    assert grammar.entropy() == pytest.approx(
        grammar.conditional_entropy() + grammar.intent_entropy()
    )
    assert 0 < grammar.intent_entropy() <= math.log(len(grammar.intents))
    counts = Counter(sample.label for sample in samples)
    assert set(counts) == set(grammar.intents)
    shares = [count / len(samples) for count in counts.values()]
    plug_in = -sum(share * math.log(share) for share in shares)
    assert plug_in == pytest.approx(grammar.intent_entropy(), abs=0.01)


def test_size_of_the_corpus(grammar: Grammar, samples: list[Sample]) -> None:
    assert len(grammar.intents) == len(set(grammar.intents)) == 10
    assert 300 <= len(grammar.vocabulary) <= 600
    assert 12 < grammar.entropy() < 18
    assert 8 < grammar.mean_length() < 10
    assert all(word.isascii() and word.isalpha() and word.islower() for word in grammar.vocabulary)
    assert {word for s in samples for word in s.text.split()} <= set(grammar.vocabulary)


def test_no_intent_owns_its_words(samples: list[Sample]) -> None:
    """A word that is typical of one intent is said in others, too."""
    intents: dict[str, set[str]] = {}
    for sample in samples:
        for word in sample.text.split():
            intents.setdefault(word, set()).add(sample.label)
    for word in ("call", "play", "weather", "traffic", "meeting", "turn", "text", "news", "milk"):
        assert len(intents[word]) > 1, word


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**64), st.integers(0, 40), st.integers(0, 40))
def test_samples_are_a_prefix_stable_function_of_the_seed(seed: int, n: int, more: int) -> None:
    grammar = assistant_grammar()
    assert grammar.sample(n, seed) == grammar.sample(n + more, seed)[:n]


def test_seeds_give_different_corpora(grammar: Grammar) -> None:
    first, second = ({s.text for s in grammar.sample(500, seed)} for seed in (0, 1))
    assert len(first & second) < 150
    assert len(first) > 450


@pytest.mark.parametrize("text", ["", "play", "play some jazz jazz", "Play some jazz", "zebra"])
def test_outside_the_language(grammar: Grammar, text: str) -> None:
    assert grammar.log_prob(text) == -math.inf
    assert grammar.intent(text) is None
    assert grammar.derivations(text) == 0


def test_written_formats_hold_the_same_sentences(grammar: Grammar, tmp_path: Path) -> None:
    for suffix in ("jsonl", "csv", "txt"):
        write_grammar(tmp_path / f"corpus.{suffix}", 50, 3)
    expected = grammar.sample(50, 3)
    lines = (tmp_path / "corpus.jsonl").read_text().splitlines()
    assert [Sample(**json.loads(line)) for line in lines] == expected
    with (tmp_path / "corpus.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Sample(r["text"], r["label"], float(r["log_prob"])) for r in rows] == expected
    assert (tmp_path / "corpus.txt").read_text().splitlines() == [s.text for s in expected]
    assert len(list(tmp_path.iterdir())) == 3


def test_writing_refuses_bad_input(tmp_path: Path) -> None:
    existing = tmp_path / "corpus.txt"
    existing.write_text("mine\n")
    with pytest.raises(UserError, match="exists"):
        write_grammar(existing, 5, 0)
    assert existing.read_text() == "mine\n"
    with pytest.raises(UserError, match=r"suffix '\.xml'"):
        write_grammar(tmp_path / "corpus.xml", 5, 0)
    with pytest.raises(UserError, match="at least 1"):
        write_grammar(tmp_path / "new.txt", 0, 0)
    with pytest.raises(UserError, match="seed"):
        write_grammar(tmp_path / "new.txt", 5, -1)
    with pytest.raises(UserError, match="no folder"):
        write_grammar(tmp_path / "missing" / "new.txt", 5, 0)
    assert list(tmp_path.iterdir()) == [existing]


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(RunError, match="No space left"):
        write_grammar(tmp_path / "new.txt", 5, 0)
    assert not list(tmp_path.iterdir())


def test_sampling_refuses_bad_input(grammar: Grammar) -> None:
    assert grammar.sample(0, 0) == []
    with pytest.raises(UserError, match="-1 sentences"):
        grammar.sample(-1, 0)
    with pytest.raises(UserError, match="seed"):
        grammar.sample(1, -1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "no rules"),
        ("a = <b>\nb : c", "malformed or repeated grammar rule: 'b : c'"),
        ("a = <b>\nb = c\nb = d", "malformed or repeated grammar rule: 'b = d'"),
        ("a = <b>\nb = c | c", "<b>: empty, weightless or repeated expansion"),
        ("a = <b>\nb = c | 0 d", "<b>: empty, weightless or repeated expansion"),
        ("a = <b>\nb = c |", "<b>: empty, weightless or repeated expansion"),
        ("a = <b>\nb = c <where>\nwere = d", "unknown grammar symbol '<where>'.*'<were>'"),
        ("a = <b>\nb = c | d <b>", "<b> derives itself"),
        ("a = <b>\nb = c\nd = e", "no sentence uses <d>"),
        ("a = <b> | c\nb = c", "must be one symbol"),
    ],
)
def test_malformed_grammars_are_named(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Grammar(source)
