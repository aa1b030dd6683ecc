"""Figures of dialogue: of which responses, to which contexts, against which references."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dialogue_models import TURNS, dialogue_model

from uncollapse import TextVAE
from uncollapse.data.corpus import Corpus
from uncollapse.decoders.generation import generate
from uncollapse.errors import UserError
from uncollapse.evaluation import dialogue
from uncollapse.evaluation.dialogue import dialogue_probes
from uncollapse.evaluation.dialogue_figures import (
    BLEU,
    DIALOGUE,
    DIVERSITY,
    EMBEDDINGS,
    HEADLINE,
    LABELS,
    PPL,
)
from uncollapse.evaluation.likelihood import score_sentences
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.prior_draws import generator_of
from uncollapse.evaluation.remembered import fingerprint, once
from uncollapse.evaluation.response_labels import label_figures
from uncollapse.evaluation.responses import bleu, diversity, embeddings
from uncollapse.evaluation.responses.sets import ResponseSets
from uncollapse.evaluation.written_responses import (
    AnsweredContexts,
    WrittenResponses,
    write_responses,
)

TEXTS = (*BLEU, *EMBEDDINGS, *DIVERSITY)  # of words alone


def dialogues(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Small talk, in which every turn but the last is labelled as a question or not."""
    draw = random.Random(seed)

    def turn(number: int) -> dict[str, Any]:
        text = draw.choice(TURNS) + draw.choice(["", " there", " you ?"])
        label = "question" if text.endswith("?") else "statement"
        return {"speaker": "AB"[number % 2], "text": text, "act": label}

    return [{"turns": [turn(i) for i in range(draw.randint(2, 5))]} for _ in range(count)]


def corpora(vae: TextVAE, label: str | None = None) -> tuple[Corpus, Corpus]:
    return vae._corpus(dialogues(80), label), vae._corpus(dialogues(12, seed=1), label)


def words(vae: TextVAE, sentences: list[list[int]]) -> list[list[str]]:
    return [[vae.tokenizer.tokens[token] for token in ids] for ids in sentences]


def by_hand(vae: TextVAE, train: Corpus, test: Corpus, rows: np.ndarray) -> list[list[list[int]]]:
    """Ten responses to the context of each row, one context after the other."""
    model = vae.model
    longest = min(40, int(train.lengths.max()))
    assert test.contexts is not None
    found = []
    for row in rows.tolist():
        generator = generator_of(5, row)
        with torch.no_grad():
            one = vae._condition(test.contexts.batch(np.array([row])), {})
            condition = one.repeat(10)
            codes = model.draw_codes(10, generator, condition=condition)
            z = model.sample_prior(10, generator, codes, condition)
            method = "sample" if z is None else "greedy"
            found.append(
                generate(
                    model.decoder, z, rows=10, condition=condition, method=method,
                    max_length=longest, generator=generator if z is not None else [generator] * 10,
                )
            )  # fmt: skip
    return found


def values(found: dict[str, Metric]) -> dict[str, float]:
    """Without dashes."""
    return {name: metric.value for name, metric in found.items() if metric.value is not None}


@pytest.mark.parametrize("kind", ["gaussian", "mixture", "codes", "no latent"])
def test_figures_are_those_of_responses_written_by_hand(kind: str) -> None:
    vae = dialogue_model(kind)
    train, test = corpora(vae)
    state = torch.get_rng_state()
    found = dialogue_probes(vae.model, vae.tokenizer, train, test, generated=95, seed=5)
    assert torch.equal(state, torch.get_rng_state())
    assert tuple(found) == DIALOGUE
    contexts = AnsweredContexts.of(test, 9)
    assert len(contexts.rows) == 9
    written = by_hand(vae, train, test, contexts.rows)
    references = [
        words(vae, [test.sentence(row).tolist() for row in rows]) for rows in contexts.references
    ]
    sets = ResponseSets([words(vae, group) for group in written], references)
    said = words(vae, [train.sentence(row).tolist() for row in range(len(train))])
    vectors = dialogue.corpus_vectors(said)
    expected = {
        **bleu.response_bleu(sets),
        **bleu.response_bleu_wae(sets),
        **bleu.response_bleu_sacre(sets),
        **embeddings.response_embeddings(sets, vectors),
        **embeddings.response_embeddings_wae(sets, vectors),
        **diversity.response_diversity(sets, diversity.frequent_responses(said)),
    }
    assert set(expected) == set(TEXTS)
    for name, metric in expected.items():
        assert found[name].value == metric.value, name
        assert found[name].standard_error == metric.standard_error, name
    how = found["bleu_4_f1"].estimator
    assert "9 of " in how
    assert "references each on average" in how
    assert ("words drawn" in how) == (kind == "no latent")
    assert ("most probable words" in how) == (kind != "no latent")
    assert "training responses" in found["embedding_average"].estimator
    assert len({tuple(ids) for group in written for ids in group}) > 1


@pytest.mark.parametrize("kind", ["attention", "mixture", "no latent"])
def test_neither_batches_nor_other_figures_matter(kind: str) -> None:
    vae = dialogue_model(kind)
    train, test = corpora(vae)
    given = (vae.model, vae.tokenizer, train, test)
    every = dialogue_probes(*given, generated=80, batch_size=32)
    one = dialogue_probes(*given, generated=80, batch_size=1)
    assert values(one) == pytest.approx(values(every), rel=1e-5)
    some = ["distinct_1_inter", PPL, "bleu_sacre"]
    alone = dialogue_probes(*given, metrics=some, generated=80)
    assert list(alone) == ["bleu_sacre", "distinct_1_inter", PPL]
    assert alone == {name: every[name] for name in alone}
    assert values(dialogue_probes(*given, generated=80, seed=1)) != values(every)
    # a context is answered alike in whatever company
    rows = AnsweredContexts.of(test, 8).rows
    together = write_responses(vae.model, test, rows, max_length=9)
    apart = write_responses(vae.model, test, rows[3:4], max_length=9)
    assert apart.tokens == together.tokens[3:4]


@pytest.mark.parametrize("kind", ["gaussian", "no latent"])
def test_reconstruction_perplexity_is_of_responses_and_without_the_kl(kind: str) -> None:
    vae = dialogue_model(kind)
    train, test = corpora(vae)
    found = dialogue_probes(vae.model, vae.tokenizer, train, test, metrics=[PPL], seed=3)[PPL]
    assert test.contexts is not None
    told = test.select(np.flatnonzero(test.contexts.turns))  # no first turns
    scores = score_sentences(vae.model, told, samples=10, seed=3)
    assert found.value == math.exp(-scores.reconstruction.sum() / scores.tokens.sum())
    assert ("exact" in found.estimator) == (kind == "no latent")
    assert ("10 posterior samples" in found.estimator) == (kind == "gaussian")


# --- contexts and references --------------------------------------------------------------


def test_responses_to_the_same_context_are_references_of_each_other() -> None:
    vae = dialogue_model("gaussian")

    def answer(context: list[Any], response: str, speaker: str | None = None) -> dict[str, Any]:
        return {"context": context, "response": response, "speaker": speaker}

    asked = [{"speaker": "A", "text": "hello there"}, {"speaker": "B", "text": "how are you ?"}]
    rows = [
        answer(asked, "fine", "A"),
        answer(asked, "fine thanks", "A"),
        answer(["where do we go now ?"], "home"),
        answer(asked, "home", "B"),  # somebody else answers
        answer([], "hello"),
        answer(["hello there how are", "you ?"], "fine"),  # the same words, other turns
        answer(asked, "and you", "A"),
        answer(["where do we go now ?"], "home i think"),
    ]
    corpus = vae._corpus(rows, None)
    found = AnsweredContexts.of(corpus, 100)
    assert [own.tolist() for own in found.references] == [[0, 1, 6], [2, 7], [3], [5]]
    assert found.rows.tolist() == [0, 2, 3, 5]
    assert found.describe() == "4 contexts, 1.75 references each on average"
    some = AnsweredContexts.of(corpus, 2)
    assert [own.tolist() for own in some.references] == [[0, 1, 6], [5]]
    assert some.answers.tolist() == [0, 1, 5, 6]
    assert some.describe() == "2 of 4 contexts, 2.00 references each on average"


def test_contexts_are_those_that_the_model_sees() -> None:
    vae = dialogue_model("gaussian")  # three turns at most
    ends = ["how are you ?", "fine", "and you"]
    rows = [{"context": [*start, *ends], "response": "home"} for start in ([], ["hello"], ["now"])]
    assert len(AnsweredContexts.of(vae._corpus(rows, None), 9).rows) == 1


def test_what_is_missing_is_said() -> None:
    vae = dialogue_model("gaussian")
    train, test = corpora(vae)
    lone = vae._corpus(["hello there", "how are you ?"], None)
    with pytest.raises(UserError, match="no response of the test data has a context"):
        dialogue_probes(vae.model, vae.tokenizer, train, lone)
    given = (vae.model, vae.tokenizer, train, test)
    with pytest.raises(UserError, match="did you mean 'bleu_4_f1'"):
        dialogue_probes(*given, metrics=["bleu4_f1"])
    with pytest.raises(UserError, match=r"test data has no labels.*--label-column"):
        dialogue_probes(*given, metrics=["response_label_accuracy"])
    found = dialogue_probes(*given, generated=20)
    for name in LABELS:
        assert found[name].value is None
        assert found[name].estimator.startswith("none: the test data has no labels")
    data = dialogues(3)
    with pytest.raises(UserError, match=r"need.* training sentences"):
        vae.evaluate(data, ["dialogue"])
    how: dict[str, Any] = {"train": data, "vectors": "nowhere.txt"}
    with pytest.raises(UserError, match=r"cannot read the vectors nowhere\.txt"):
        vae.evaluate(data, ["dialogue"], **how)
    for others in ("standard", "bleu_2_f1"):
        with pytest.raises(UserError, match="of use with the embedding_… figures only"):
            vae.evaluate(data, [others], **how)


def test_words_that_never_meet_leave_vectors_out() -> None:
    vae = dialogue_model("gaussian")
    _, test = corpora(vae)
    train = vae._corpus(["hello", "home", "fine"], None)
    given = (vae.model, vae.tokenizer, train, test)
    found = dialogue_probes(*given, generated=20)
    assert "no vectors can be trained" in found["embedding_average"].estimator
    assert found["bleu_1_f1"].value is not None
    with pytest.raises(UserError, match="no vectors can be trained"):
        dialogue_probes(*given, metrics=["embedding_greedy"])


def test_a_model_that_is_told_of_no_context_has_dashes() -> None:
    vae = dialogue_model("no context")
    found = vae.evaluate(dialogues(3), ["dialogue"], train=dialogues(9))
    assert tuple(found) == DIALOGUE
    told = dialogue_model("mixture")
    other = told.evaluate(dialogues(9), ["dialogue"], train=dialogues(40), generated=30)
    for name, metric in found.items():
        assert metric.value is None
        assert metric.estimator == "none: the model is told of no context"
        assert (metric.unit, metric.definition) == (other[name].unit, other[name].definition)
    (name,) = vae.evaluate(dialogues(3), ["bleu_sacre"], train=dialogues(9))
    assert name == "bleu_sacre"
    assert set(HEADLINE) < set(DIALOGUE)


# --- vectors and labels -------------------------------------------------------------------


def test_vectors_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "some-vectors.txt"
    vae = dialogue_model("gaussian")
    names = sorted(set(" ".join(TURNS).split()))
    path.write_text("".join(f"{name} {i} {i % 3} 1\n" for i, name in enumerate(names)), "utf-8")
    data: dict[str, Any] = {"train": dialogues(20), "generated": 30, "vectors": path}
    found = vae.evaluate(dialogues(9, seed=1), ["embedding_average"], **data)["embedding_average"]
    assert "vectors: some-vectors.txt" in found.estimator
    assert found.value is not None
    # the file has changed, and is not taken for what it was
    path.write_text("".join(f"{name} {9 - i} 2\n" for i, name in enumerate(names)), "utf-8")
    other = vae.evaluate(dialogues(9, seed=1), ["embedding_average"], **data)["embedding_average"]
    assert other.value != found.value
    path.write_text("hello 1 x\n", "utf-8")
    with pytest.raises(UserError, match="line 1: 'x' is not a number"):
        vae.evaluate(dialogues(9, seed=1), ["embedding_average"], **data)


def test_what_is_learned_of_training_data_is_learned_once() -> None:
    made: list[int] = []
    for key in (1, 1, 2, 2, 1):
        assert once("squares", key, lambda key=key: made.append(key) or key**2) == key**2
    assert made == [1, 2, 1]
    vae = dialogue_model("gaussian")
    train, test = corpora(vae)
    prints = {fingerprint(part, vae.tokenizer) for part in (train, test, corpora(vae, "act")[0])}
    assert len(prints) == 3
    assert fingerprint(corpora(vae)[0], vae.tokenizer) in prints


def test_a_label_that_can_be_learned() -> None:
    """A response is a question or a statement by its last word, and so is what is written."""
    vae = dialogue_model("codes")
    train, test = vae._corpus(dialogues(40), "act"), vae._corpus(dialogues(30, seed=1), "act")
    contexts = AnsweredContexts.of(test, 20)
    asks, states = vae.tokenizer.encode("how are you ?"), vae.tokenizer.encode("home there")
    gold = test.label_names
    labels = test.labels
    assert labels is not None
    # half of the responses to every context are questions, of action 2-1; the others of 0-0
    tokens = [[asks, states] * 5 for _ in contexts.rows]
    codes = np.tile(np.array([[2, 1], [0, 0]] * 5), (len(contexts.rows), 1, 1))
    sets = ResponseSets(
        [words(vae, group) for group in tokens],
        [words(vae, [test.sentence(r).tolist() for r in rows]) for rows in contexts.references],
    )
    written = WrittenResponses(tokens, "c", codes, "by hand")
    given = (vae.model, vae.tokenizer, train, test, contexts, written, sets)
    found = label_figures(*given)
    assert tuple(found) == tuple(LABELS)
    kinds = [{gold[label] for label in labels[rows]} for rows in contexts.references]
    shares = [len(own) / 2 for own in kinds]
    assert 0.5 <= np.mean(shares) < 1
    accuracy = found["response_label_accuracy"]
    assert accuracy.value == pytest.approx(np.mean(shares))
    assert "column 'act'" in accuracy.estimator
    assert "gets 100.0% of" in accuracy.estimator
    assert found["action_homogeneity"].value == pytest.approx(1)
    assert found["action_homogeneity"].standard_error == pytest.approx(0, abs=1e-9)
    assert found["action_mutual_information"].value == pytest.approx(np.log(2))

    # actions that say nothing of the label
    written = replace(written, codes=np.tile([[0, 0]] * 4 + [[1, 1]] * 6, (20, 1, 1)))
    blind = label_figures(*given[:5], written, sets)
    assert blind["action_homogeneity"].value == pytest.approx(0, abs=1e-9)
    # one label for all
    written = replace(written, tokens=[[asks] * 10 for _ in contexts.rows])
    alike = label_figures(*given[:5], written, sets)
    assert alike["action_homogeneity"].value is None
    assert "same label" in alike["action_homogeneity"].estimator
    # empty responses have a label too; none without a discrete variable
    written = WrittenResponses([[[]] * 10 for _ in contexts.rows], None, None, "")
    none = label_figures(*given[:5], written, sets)
    assert none["response_label_accuracy"].value is not None
    assert "no discrete variable" in none["action_mutual_information"].estimator


def test_references_without_a_label_are_left_out() -> None:
    vae = dialogue_model("gaussian")
    rows: list[dict[str, Any]] = [
        {"context": ["hello there"], "response": "how are you ?", "act": "question"},
        {"context": ["home"], "response": "fine"},
        {"context": ["home i think"], "response": "go now ?", "act": "unheard of"},
    ]
    train, test = vae._corpus(dialogues(40), "act"), vae._corpus(rows, "act")
    contexts = AnsweredContexts.of(test, 9)
    asks = vae.tokenizer.encode("how are you ?")
    sets = ResponseSets([words(vae, [asks])] * 3, [words(vae, [asks])] * 3)
    written = WrittenResponses([[asks]] * 3, None, None, "")
    found = label_figures(vae.model, vae.tokenizer, train, test, contexts, written, sets)
    accuracy = found["response_label_accuracy"]
    assert accuracy.value == 0.5
    assert "1 more have no figure" in accuracy.estimator
