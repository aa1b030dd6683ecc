"""Probes of generated text, each on text for which its answer is known."""

from __future__ import annotations

import math
import random
import signal
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_model
from sacrebleu.metrics.bleu import BLEU

from uncollapse.config import Recipe
from uncollapse.data.corpus import Corpus
from uncollapse.data.grammar import Grammar, assistant_grammar
from uncollapse.data.tokenizer import UNK, Tokenizer
from uncollapse.errors import UserError
from uncollapse.evaluation import reverse_perplexity
from uncollapse.evaluation.generation import (
    GENERATION,
    corpus_of_ids,
    generation_probes,
    probe_sentences,
)
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.reverse_perplexity import perplexities, probe_language_model
from uncollapse.evaluation.text_statistics import (
    Sentences,
    copied,
    count_words,
    distinct,
    self_bleu,
    unknown_share,
    word_kl,
)
from uncollapse.recipes import load_recipe
from uncollapse.training.signals import Interrupted

STATISTICS = GENERATION[3:]


def number(metric: Metric) -> float:
    assert metric.value is not None
    return metric.value


def random_text(count: int, seed: int, longest: int = 9, words: int = 8) -> Sentences:
    draw = random.Random(seed)
    return [
        [draw.randrange(4, 4 + words) for _ in range(draw.randint(1, longest))]
        for _ in range(count)
    ]


@cache
def grammar_data() -> tuple[Tokenizer, Corpus, Corpus, Corpus]:
    """Three independent corpora of the grammar, and a tokenizer that knows all its words."""
    grammar = assistant_grammar()
    tokenizer = Tokenizer.train([" ".join(grammar.vocabulary)], "whitespace", None)
    parts = []
    for seed, size in enumerate((1000, 1000, 400)):
        texts = [sample.text for sample in grammar.sample(size, seed)]
        parts.append(Corpus.from_texts(texts, tokenizer))
    return tokenizer, *parts


def small_language_model(epochs: int = 5) -> Recipe:
    overrides = [
        *reverse_perplexity.SETTINGS,
        "decoder.embedding_dim=48",
        "decoder.hidden_dim=48",
        "decoder.embedding_dropout=0",
        "training.learning_rate=0.02",
        f"training.max_epochs={epochs}",
    ]
    return load_recipe("lstm-lm", overrides)


def numpy_state() -> list[int]:
    return np.random.get_state(legacy=False)["state"]["key"].tolist()


def sentences_of(corpus: Corpus) -> Sentences:
    return [corpus.sentence(i).tolist() for i in range(len(corpus))]


# --- statistics -----------------------------------------------------------------------------


def test_the_training_text_itself() -> None:
    texts = ["a b c a", "b <unk> d", "c c", "e <unk> a b"] * 20
    tokenizer = Tokenizer.train(texts, "whitespace", None)
    train = Corpus.from_texts(texts, tokenizer)
    found = probe_sentences(
        sentences_of(train), tokenizer, train, train, origin="training", metrics=STATISTICS
    )
    assert tuple(found) == STATISTICS
    assert number(found["copied"]) == 1
    assert number(found["word_kl"]) == pytest.approx(0, abs=1e-12)
    assert number(found["sample_unknown_rate"]) == 2 / 13
    assert number(found["distinct_1"]) == 6 / (13 * 20)
    assert number(found["self_bleu"]) == pytest.approx(100)
    for metric in found.values():
        assert metric.definition
        assert "80 test sentences have" in metric.estimator


def test_word_kl_by_hand() -> None:
    training = np.array([0, 0, 0, 0, 50, 30, 20, 0])
    found = word_kl([[4, 4], [], [5, 7]], training)
    exact = 0.5 * math.log(0.5 / 0.5) + 0.25 * math.log(0.25 / 0.3)
    assert number(found) == pytest.approx(exact)
    assert "25.00% of them not in training" in found.estimator
    assert found.samples == 2
    assert word_kl([[7]], training).value is None
    assert word_kl([[], []], training).value is None


def test_word_kl_error_is_that_of_repetition() -> None:
    training = np.array([0, 0, 0, 0, 9, 1, 5, 4, 4, 1, 2, 2])
    runs = [word_kl(random_text(300, seed), training) for seed in range(40)]
    spread = np.std([number(run) for run in runs])
    claimed = np.mean([run.standard_error for run in runs])  # type: ignore[type-var]
    assert claimed == pytest.approx(spread, rel=0.4)


def test_words_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uncollapse.evaluation.text_statistics.COUNTED_AT_ONCE", 3)
    corpus = corpus_of_ids([[4, 5, 5], [], [6, 4, 4, 7]])
    assert count_words(corpus, 9).tolist() == [0, 0, 0, 0, 3, 2, 1, 1, 0]


def test_distinct_on_constructed_text() -> None:
    same = [[4, 5, 6], [4, 5, 6]]
    assert number(distinct(same, 1, 2)) == 0.5
    assert number(distinct(same, 2, 2)) == 0.5
    assert number(distinct([[4, 5, 6], [7, 8, 9]], 2, 2)) == 1
    assert number(distinct([[4, 4, 4, 4], []], 2, 2)) == pytest.approx(1 / 3)
    assert distinct(same, 1, 2).standard_error is None
    assert distinct([[4], [5]], 2, 2).value is None
    assert distinct([[], []], 1, 2).value is None


def test_distinct_does_not_depend_on_the_number_of_samples() -> None:
    few, many = random_text(1000, 0), random_text(10_500, 0)
    found = distinct(many, 2, 100)
    assert number(found) == pytest.approx(number(distinct(few, 2, 100)), rel=0.05)
    assert found.samples == 10_500
    assert found.standard_error is not None
    assert distinct(many, 2).samples == 10_000  # the rest is no whole block
    runs = [number(distinct(random_text(100, seed), 2, 100)) for seed in range(1, 60)]
    assert found.standard_error == pytest.approx(np.std(runs) / math.sqrt(105), rel=0.35)


def test_self_bleu_of_equal_and_of_disjoint_sentences() -> None:
    for sentence in ([4, 5, 6, 7, 8], [4, 5], [4]):
        assert number(self_bleu([sentence] * 6, 6)) == pytest.approx(100)
    disjoint = [list(range(start, start + 6)) for start in range(4, 60, 6)]
    assert number(self_bleu(disjoint, len(disjoint))) == 0
    assert number(self_bleu([[4, 5], [], [4, 5], []], 4)) == pytest.approx(100)
    assert self_bleu([[4, 5], [], []], 3).value is None


def test_self_bleu_agrees_with_sacrebleu() -> None:
    sentences = random_text(40, 3, longest=12, words=5)
    bleu = BLEU(
        tokenize="none",
        smooth_method="floor",
        smooth_value=0.1,
        effective_order=True,
        force=True,
    )
    text = [" ".join(map(str, sentence)) for sentence in sentences]
    scores = [
        bleu.sentence_score(own, text[:row] + text[row + 1 :]).score for row, own in enumerate(text)
    ]
    assert number(self_bleu(sentences, 40)) == pytest.approx(np.mean(scores), abs=1e-6)


def test_unknown_share_and_copies() -> None:
    found = unknown_share([[UNK, 5], [], [6, 7]])
    assert number(found) == 0.25
    assert unknown_share([[], []]).value is None
    train = corpus_of_ids([[4, 5], [5, 4], [6, 7, 8]])
    found = copied([[4, 5], [4], [5, 5], [6, 7, 8]], train)
    assert number(found) == 0.5
    assert found.standard_error == pytest.approx(math.sqrt(0.25 / 3))


# --- perplexities ---------------------------------------------------------------------------


def test_the_grammar_as_a_model_of_itself() -> None:
    """A perfect generator is as good a teacher as real text, and no better than the truth."""
    tokenizer, samples, train, test = grammar_data()
    found = perplexities(samples, train, test, len(tokenizer), recipe=small_language_model())
    exact = assistant_grammar()
    truth = -np.array([exact.log_prob(tokenizer.decode(s)) for s in sentences_of(test)])
    floor = math.exp(truth.sum() / (test.lengths + 1).sum())  # of these very sentences
    assert floor == pytest.approx(math.exp(exact.entropy() / (exact.mean_length() + 1)), rel=0.05)
    reverse, real, forward = (found[name] for name in reverse_perplexity.PERPLEXITIES)
    for metric in (reverse, real, forward):
        assert metric.standard_error is not None
        assert number(metric) > floor - 4 * metric.standard_error
        assert "1,000 sentences" in metric.estimator
    assert number(reverse) == pytest.approx(number(real), rel=0.08)
    assert number(forward) == pytest.approx(number(real), rel=0.08)


def test_a_language_that_can_be_learned_reaches_its_entropy() -> None:
    grammar = Grammar(
        """start = <order> | <question>
        order = <verb> the <noun> | 2 <verb> the <noun> and the <noun>
        question = is the <noun> <state> | 3 are you <state>
        verb = 3 open | close | 2 lock
        noun = 4 door | 2 window | gate | shop
        state = open | 5 shut
        """.replace("        ", "")
    )
    tokenizer = Tokenizer.train([" ".join(grammar.vocabulary)], "whitespace", None)
    samples, train, test = (
        Corpus.from_texts([drawn.text for drawn in grammar.sample(1500, seed)], tokenizer)
        for seed in range(3)
    )
    found = perplexities(samples, train, test, len(tokenizer), recipe=small_language_model(3))
    floor = math.exp(grammar.entropy() / (grammar.mean_length() + 1))
    for metric in found.values():
        assert metric.standard_error is not None
        assert floor - 3 * metric.standard_error < number(metric) < 1.05 * floor


def test_bad_generators_are_told_apart() -> None:
    tokenizer, samples, train, test = grammar_data()
    recipe = small_language_model(3)
    draw = random.Random(0)
    shuffled = [draw.sample(s, len(s)) for s in sentences_of(samples)]
    narrow = sentences_of(samples)[:20] * 50
    good, mixed, few = (
        perplexities(corpus_of_ids(text), train, test, len(tokenizer), recipe=recipe)
        for text in (sentences_of(samples), shuffled, narrow)
    )
    assert number(mixed["reverse_ppl"]) > 2 * number(good["reverse_ppl"])
    assert number(mixed["forward_ppl"]) > 2 * number(good["forward_ppl"])
    # what is said is right, but much is never said
    assert number(few["reverse_ppl"]) > 2 * number(good["reverse_ppl"])
    assert number(few["forward_ppl"]) < 1.5 * number(good["forward_ppl"])


def test_the_language_model_of_real_text_is_trained_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, samples, train, test = grammar_data()
    recipe = small_language_model(1)
    trained: list[str] = []
    original = reverse_perplexity._train

    def counting(*arguments):  # type: ignore[no-untyped-def]
        trained.append(arguments[5])
        return original(*arguments)

    monkeypatch.setattr(reverse_perplexity, "_train", counting)
    monkeypatch.setattr(reverse_perplexity, "_trained_on_real", {})

    def measure(first: int, text: Corpus = train, seed: int = 0) -> float:
        part = samples.head(first)
        found = perplexities(
            part,
            text,
            test.head(50),
            len(tokenizer),
            wanted={"reverse_ppl_real"},
            recipe=recipe,
            seed=seed,
        )
        return number(found["reverse_ppl_real"])

    first = measure(60)
    assert measure(60) == first
    assert len(trained) == 1
    measure(61)
    measure(60, text=test)
    measure(60, seed=1)
    assert len(trained) == 4
    for seed in range(2, 6):
        measure(60, seed=seed)
    assert len(reverse_perplexity._trained_on_real) == reverse_perplexity.KEPT
    assert measure(60) == first  # forgotten, and found anew
    assert len(trained) == 9


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_ends_the_probe(
    number: int, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no run to resume, and no line that says so."""
    tokenizer, samples, train, test = grammar_data()

    def stopped(*_: object, **__: object) -> None:
        raise Interrupted(number)

    monkeypatch.setattr("uncollapse.training.fit.fit", stopped)
    with pytest.raises(error):
        perplexities(samples, train, test, len(tokenizer), wanted={"reverse_ppl"})


def test_a_latent_is_refused() -> None:
    tokenizer, samples, train, test = grammar_data()
    with pytest.raises(UserError, match="vae has a latent"):
        perplexities(samples, train, test, len(tokenizer), recipe=load_recipe("vae"))


def test_the_default_language_model_is_a_recipe() -> None:
    recipe = probe_language_model()
    assert not recipe.latents
    assert recipe.training.precision == "f32"  # the same figures on every device


# --- the whole ------------------------------------------------------------------------------


def test_empty_sentences() -> None:
    tokenizer, _, train, test = grammar_data()
    recipe = small_language_model(1)
    train, test = train.head(40), test.head(20)
    found = probe_sentences(
        [[]] * 30, tokenizer, train, test, origin="nothing", language_model=recipe
    )
    assert tuple(found) == GENERATION
    dashes = {name for name, metric in found.items() if metric.value is None}
    defined = {"reverse_ppl_real", "forward_ppl", "copied"}
    assert dashes == set(GENERATION) - defined
    assert all(found[name].estimator.startswith("none: ") for name in dashes)
    assert number(found["copied"]) == 0
    mixed = [[], *sentences_of(train)[:10], []]
    found = probe_sentences(mixed, tokenizer, train, test, origin="x", language_model=recipe)
    assert all(metric.value is not None for metric in found.values())


@pytest.mark.parametrize("name", ["vae", "lstm-lm", "autoencoder"])
def test_any_model_can_be_probed(name: str, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    tokenizer = Tokenizer.train([" ".join(f"w{i}" for i in range(26))], "whitespace", None)
    train, test = corpus_of_ids(random_text(60, 0)), corpus_of_ids(random_text(20, 1))
    model = small_model(name).train()
    assert len(tokenizer) == model.decoder.output.weight.shape[0]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    states = torch.get_rng_state(), numpy_state(), random.getstate()
    told: list[str] = []

    def probe(**changes) -> dict[str, Metric]:  # type: ignore[no-untyped-def]
        given = {"samples": 40, "seed": 3, "language_model": small_language_model(2)}
        return generation_probes(
            model,
            tokenizer,
            train,
            test,
            progress=lambda what, done, total: told.append(f"{what} {done}/{total}"),
            **{**given, **changes},
        )

    found = probe()
    assert tuple(found) == GENERATION
    assert all(metric.value is not None for metric in found.values())
    assert "language model of the samples 2/2" in told
    assert probe() == found
    assert probe(metrics=["copied", "reverse_ppl"]) == {
        key: found[key] for key in ("reverse_ppl", "copied")
    }
    assert probe(seed=4, metrics=["word_kl"])["word_kl"].value != found["word_kl"].value
    origin = "" if name == "lstm-lm" else "z from the prior, "
    assert f"40 samples: {origin}words drawn one by one" in found["word_kl"].estimator
    greedy = probe(greedy=True, metrics=["self_bleu"])["self_bleu"]
    assert f"{origin}the most probable words" in greedy.estimator
    if name == "lstm-lm":
        assert number(greedy) == pytest.approx(100)  # without z there is one best sentence
    assert model.training
    assert not list(tmp_path.iterdir())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert numpy_state() == states[1]
    assert random.getstate() == states[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1}, "samples must be at least 2"),
        ({"metrics": ["copy"]}, "unknown metric 'copy'"),
        ({"seed": -1}, "seed must not be negative"),
        ({"train": 1}, "at least 2 training sentences, not 1"),
        ({"test": 0}, "test corpus has no sentences"),
    ],
)
def test_wrong_use(changes: dict, message: str) -> None:
    tokenizer, _, train, test = grammar_data()
    train = train.head(changes.pop("train", 50))
    test = test.head(changes.pop("test", 50))
    with pytest.raises(UserError, match=message):
        generation_probes(small_model("lstm-lm"), tokenizer, train, test, **changes)
