"""Discrete variables in people's hands: predictions, clusters, names, samples of a component."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_recipe

from uncollapse import TextVAE
from uncollapse.data.grammar import assistant_grammar
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError
from uncollapse.model import Model

SAMPLES = assistant_grammar().sample(150, seed=5)
TEXTS = [sample.text for sample in SAMPLES]
ROWS = [{"text": sample.text, "label": sample.label} for sample in SAMPLES]
INTENTS = sorted({sample.label for sample in SAMPLES})
VALUES = len(INTENTS) + 2  # more than there are classes
SUPERVISED = (
    "latents.z.prior.components=" + str(VALUES),
    "objective.supervision=[{column: label, variable: z.component, index: 1}]",
    "training.max_epochs=1",
)


def untrained(name: str, *overrides: str) -> TextVAE:
    """A random model that knows the words of the texts."""
    vae = TextVAE(small_recipe(name, overrides))
    vae._tokenizer = Tokenizer.train(TEXTS, "words", None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae._model = Model(vae.recipe, len(vae.tokenizer))
        with torch.no_grad():
            for parameter in vae.model.parameters():
                parameter.uniform_(-0.7, 0.7)
    vae.model.eval()
    return vae


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two mixtures, of which the second is told the intents."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    TextVAE(small_recipe("gm-vae", SUPERVISED)).fit(ROWS, out=folder, progress=False)
    return folder


@pytest.fixture
def vae(run: Path) -> TextVAE:
    return TextVAE.from_pretrained(run)


def test_probabilities_are_those_of_the_sentences_in_their_order() -> None:
    vae = untrained("gm-vae")
    texts = ["play some jazz", "will it rain", "call my mother on the phone please"]
    found = vae.predict_proba(texts)
    assert found.shape == (3, 2, 3)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    for text, row in zip(texts, found, strict=True):
        np.testing.assert_allclose(vae.predict_proba([text])[0], row, atol=1e-5)
    np.testing.assert_array_equal(vae.predict_proba(texts, "z.component", 1), found[:, 1])
    codes = vae.predict(texts)
    assert (codes.dtype, codes.shape) == (np.int64, (3, 2))
    np.testing.assert_array_equal(codes, found.argmax(-1))
    np.testing.assert_array_equal(vae.predict(texts, index=1), codes[:, 1])


def test_a_variable_of_one_index_has_no_axis_for_it() -> None:
    vae = untrained("semi-vae", "latents.c.groups=1", "latents.c.posterior.categories=4")
    assert (
        vae.predict_proba(TEXTS[:5]).shape == vae.predict_proba(TEXTS[:5], "c", 0).shape == (5, 4)
    )
    assert vae.predict(TEXTS[:5]).shape == (5,)


def test_a_file_is_read_as_a_list_is(tmp_path: Path) -> None:
    vae = untrained("dcm-vae", "objective.supervision=[]")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:9]) + "\n")
    found = vae.predict(tmp_path / "texts.txt", "z")
    np.testing.assert_array_equal(found, vae.predict(TEXTS[:9], "z"))
    assert len(set(map(tuple, found.tolist()))) > 1


def test_a_supervised_column_gives_classes(vae: TextVAE) -> None:
    assert vae.classes == {"label": INTENTS}
    whole = vae.predict_proba(TEXTS[:20], "z.component", 1)
    assert whole.shape == (20, VALUES)
    found = vae.predict_proba(TEXTS[:20], "label")
    kept = whole[:, : len(INTENTS)]
    np.testing.assert_allclose(found, kept / kept.sum(-1, keepdims=True), atol=1e-9)
    names = vae.predict(TEXTS[:20], "label")
    assert names.tolist() == [INTENTS[place] for place in found.argmax(-1)]


def test_supervised_columns_are_measured_where_the_data_has_them(vae: TextVAE) -> None:
    assert vae.evaluate(ROWS[:40], ["accuracy_label"])["accuracy_label"].value is not None
    assert vae.evaluate(TEXTS[:40], ["accuracy_label"])["accuracy_label"].value is None
    assert vae.diagnose(ROWS[:40]) == vae.diagnose(TEXTS[:40])


def test_clusters_hold_every_sentence_and_agree_with_labels(vae: TextVAE) -> None:
    found = vae.clusters(ROWS, index=1, examples=2, words=3)
    assert (found.variable, found.index) == ("z.component", 1)
    assert sum(cluster.size for cluster in found.clusters) == len(ROWS)
    # the supervised column is what there is to compare with
    assert set(found.clusters[0].labels) <= set(INTENTS)
    assert "cluster_purity" in found.agreement
    codes = vae.predict(TEXTS, index=1)
    assert found.clusters[0].size == np.bincount(codes).max()
    assert all(len(c.typical) <= 2 and len(c.words) <= 3 for c in found.clusters)
    bare = vae.clusters(TEXTS)
    assert (bare.index, bare.agreement) == (None, {})
    assert len(bare.clusters[0].code) == 2


def test_names_are_shown_sampled_and_kept(vae: TextVAE, run: Path, tmp_path: Path) -> None:
    code = vae.clusters(TEXTS, index=1).clusters[0].code
    assert vae.names == {}
    vae.name_components({"z.component": {code: "asks"}}, index=1)
    assert vae.names == {"z.component": {f"*-{code[0]}": "asks"}}
    assert vae.clusters(TEXTS, index=1).clusters[0].name == "asks"
    assert vae.clusters(TEXTS, index=0).clusters[0].name is None
    named = vae.sample(4, component="asks", seed=2)
    assert named == vae.sample(4, component=code[0], index=1, seed=2)
    assert named == vae.sample(4, component=f"*-{code[0]}", variable="z.component", seed=2)
    joint = vae.clusters(TEXTS).clusters[0].code
    vae.name_components({"z.component": {joint: "most"}})
    assert vae.clusters(TEXTS).clusters[0].name == "most"
    assert not (run / "names.yaml").exists()  # names are kept on request
    vae.save_pretrained(tmp_path / "saved")
    again = TextVAE.from_pretrained(tmp_path / "saved")
    assert again.names == vae.names
    assert again.classes == vae.classes
    assert again.sample(4, component="asks", seed=2) == named
    assert TextVAE.from_pretrained(run).names == {}


def test_names_come_from_a_file(vae: TextVAE, tmp_path: Path) -> None:
    file = tmp_path / "names.yaml"
    file.write_text("z.component:\n  0-1: asks\n")
    vae.name_components(file)
    file.write_text("z.component:\n  0-1: thanks\n  0-2: asks\n")
    vae.name_components(str(file))
    assert vae.names == {"z.component": {"0-1": "thanks", "0-2": "asks"}}
    vae.names["z.component"]["0-1"] = "a copy"
    file.write_text("z.component:\n  word-0: asks\n")
    with pytest.raises(UserError, match=r"names\.yaml: .* 'word'"):
        vae.name_components(file)
    for text in ("", "z.component: {}\n"):
        file.write_text(text)
        with pytest.raises(UserError, match=r"names\.yaml: there is no name"):
            vae.name_components(file)
    assert vae.names == {"z.component": {"0-1": "thanks", "0-2": "asks"}}


def test_a_recipe_s_own_labels_are_used_where_the_data_has_them(tmp_path: Path) -> None:
    vae = untrained("gm-vae", "data.label_column=label")
    texts = tmp_path / "a.txt"
    texts.write_text("\n".join(TEXTS))
    assert vae.clusters(texts).agreement == {}
    assert vae.clusters(ROWS).agreement
    with pytest.raises(UserError, match="has no label column 'label'"):
        vae.clusters(texts, label_column="label")


def test_spoilt_names_of_a_run_are_said_so(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "names.yaml").write_text("z.component: {9-99: asks}\n")
    with pytest.raises(UserError, match=r"names\.yaml: 'z\.component': code '9-99'"):
        TextVAE.from_pretrained(folder)


def test_a_new_training_forgets_the_names(vae: TextVAE) -> None:
    vae.name_components({"z.component": {"0-0": "asks"}})
    vae.fit(ROWS[:30], progress=False)
    assert vae.names == {}


def test_a_component_holds_z_where_it_is() -> None:
    """Components far apart: sentences of one have its z, whatever the words."""
    vae = untrained("gm-vae")
    seen: list[torch.Tensor] = []
    write = vae._write
    vae._write = lambda z, *rest: seen.append(z) or write(z, *rest)  # type: ignore[method-assign]
    prior = vae.model.latents["z"].prior
    with torch.no_grad():
        prior.free[..., 0] = torch.tensor([-50.0, 0.0, 50.0])  # means, (M, U, K)
        prior.free[..., 1] = -4.0  # log-variances
    vae.sample(20, component="0-2", seed=0)
    vae.sample(20, component=1, index=0, seed=0)
    both, first = (z.view(20, 2, -1) for z in seen)
    assert (both[:, 0] < -40).all()
    assert (both[:, 1] > 40).all()
    assert (first[:, 0].abs() < 10).all()
    assert len({round(z.item() / 50) for z in first[:, 1].mean(-1)}) == 3
    assert vae.sample(3, component="0-2", seed=1) != vae.sample(3, component="0-2", seed=2)


def test_codes_of_a_discrete_latent_are_held_too() -> None:
    vae = untrained("discrete-vae", "latents.c.groups=3", "latents.c.posterior.categories=4")
    seen: list[torch.Tensor] = []
    write = vae._write
    vae._write = lambda z, *rest: seen.append(z) or write(z, *rest)  # type: ignore[method-assign]
    vae.sample(50, component="2-*-0", seed=0)
    codes = seen[0].view(50, -1, 4).argmax(-1)
    assert (codes[:, 0] == 2).all()
    assert (codes[:, 2] == 0).all()
    assert len(codes[:, 1].unique()) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.predict(TEXTS, "z.componnt"), r"did you mean 'z\.component'"),
        (lambda vae: vae.predict(TEXTS, "lable"), "did you mean 'label'"),
        (lambda vae: vae.predict(TEXTS, index=2), "no 2"),
        (lambda vae: vae.predict(TEXTS, index=-1), "no -1"),
        (lambda vae: vae.predict(TEXTS, "label", 1), "leave out"),
        (lambda vae: vae.predict(["a", " "]), "sentence 2 is empty"),
        (lambda vae: vae.predict("nowhere.txt"), "nowhere.txt"),
        (lambda vae: vae.clusters(TEXTS, "z.compnent"), r"did you mean 'z\.component'"),
        (lambda vae: vae.clusters(TEXTS, index=5), "no 5"),
        (lambda vae: vae.clusters(TEXTS, examples=0), "examples"),
        (lambda vae: vae.clusters(TEXTS, words=0), "words"),
        (lambda vae: vae.clusters(ROWS, label_column="lable"), "did you mean 'label'"),
        (lambda vae: vae.clusters(TEXTS, label_column="label"), "no column 'label'"),
        (lambda vae: vae.name_components({"c": {}}), "unknown discrete variable 'c'"),
        (lambda vae: vae.name_components("nowhere.yaml"), "nowhere.yaml"),
        (lambda vae: vae.name_components({"z.component": {"1": "a"}}, index=2), "no 2"),
        (lambda vae: vae.sample(2, component="asks"), "has a name"),
        (lambda vae: vae.sample(2, component="0-99"), "'99'"),
        (lambda vae: vae.sample(2, component="0-1-1"), "2 values"),
        (lambda vae: vae.sample(2, component=1), "one index of 2"),
        (lambda vae: vae.sample(2, component=1, index=2), "no 2"),
        (lambda vae: vae.sample(2, component=1, variable="c"), "unknown variable 'c'"),
        (lambda vae: vae.sample(2, index=1), "with a component"),
        (lambda vae: vae.sample(2, variable="z.component"), "with a component"),
    ],
)
def test_mistakes_get_one_line(vae: TextVAE, call: Callable[[TextVAE], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call(vae)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"), [("vae", "no discrete variable"), ("lstm-lm", "language model")]
)
def test_a_model_without_discrete_variables_says_so(name: str, message: str) -> None:
    vae = untrained(name)
    for call in (
        lambda: vae.predict(TEXTS),
        lambda: vae.predict(TEXTS, "c"),
        lambda: vae.clusters(TEXTS),
        lambda: vae.sample(1, component="3"),
        lambda: vae.sample(1, component="3", variable="c"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    with pytest.raises(UserError, match="no discrete variable"):
        vae.name_components({"c": {"3": "a"}})


def test_an_untrained_model_says_so() -> None:
    vae = TextVAE.from_recipe("gm-vae")
    assert (vae.classes, vae.names) == ({}, {})
    for call in (
        lambda: vae.predict(TEXTS),
        lambda: vae.clusters(TEXTS),
        lambda: vae.name_components({}),
        lambda: vae.sample(1, component="3"),
    ):
        with pytest.raises(UserError, match="not trained yet"):
            call()
