"""The papers' figures that are drawn from trained models, and what training keeps for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from figure_support import Made, redrawn, texts_of, verdicts
from training_support import corpora, new_model, small_recipe, train

from uncollapse import TextVAE
from uncollapse.data.grammar import write_grammar
from uncollapse.errors import UserError
from uncollapse.evaluation.geometry import cosine_similarity, sentence_features
from uncollapse.evaluation.lagging import posterior_means
from uncollapse.evaluation.snapshot import (
    FOLDER,
    Snapshot,
    read_snapshot,
    snapshot_path,
    take_snapshot,
    write_snapshot,
)
from uncollapse.reproduction.figures import FIGURES, batch_norm_scale, lagging
from uncollapse.reproduction.figures.drawn import short
from uncollapse.reproduction.figures.examples import _judge as judge_examples
from uncollapse.reproduction.figures.examples import _plain, _unknown
from uncollapse.reproduction.figures.interpolation import _judge as judge_curves
from uncollapse.reproduction.published import load_published
from uncollapse.reproduction.scaled_down import scaled_down
from uncollapse.training.validation import COSINE_SENTENCES

TINY = [
    *("encoder.embedding_dim=8", "decoder.embedding_dim=8", "decoder.hidden_dim=8"),
    *("training.max_epochs=1", "data.tokenizer=whitespace", "training.snapshots=[0, 2, 5]"),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Fits the rows of a figure on a few sentences of the grammar, once."""
    folder = tmp_path_factory.mktemp("figures")
    for number, (split, count) in enumerate((("train", 160), ("validation", 16), ("test", 30))):
        write_grammar(folder / f"{split}.jsonl", count, number)
    fitted: dict[str, Made] = {}

    def fit(name: str) -> Made:
        if name not in fitted:
            own = folder / name
            own.mkdir()
            for split in ("train", "validation", "test"):
                (own / f"{split}.jsonl").symlink_to(folder / f"{split}.jsonl")
            made = Made(lambda _row, _corpus, _seed: ({}, []), own)
            for row in load_published(name).rows:
                assert row.recipe is not None
                changes = [*scaled_down(row.recipe, [*row.set, *row.keep]), *TINY, *row.keep]
                vae = TextVAE.from_recipe(row.recipe, overrides=changes)
                run = made.run(row.label, "", 0)
                vae.fit(made.files("")["train"], validation=made.files("")["validation"], out=run)
            fitted[name] = made
        return fitted[name]

    return fit


@pytest.mark.slow
def test_both_posterior_means_through_training(tiny: Callable[[str], Made]) -> None:
    runs, published = tiny("bn-figure2"), load_published("bn-figure2")
    drawn = FIGURES["bn-figure2"].compute(published, runs)
    rows = drawn.values["rows"]
    for moments in rows.values():
        assert [moment["step"] for moment in moments] == [0, 2, 5, None]
        assert all(len(moment["model"]) == len(moment["inference"]) == 16 for moment in moments)
    # the last snapshot is of the finished model's weights: both integrations agree
    for kept, final in ((own[-2], own[-1]) for label, own in rows.items() if label == "γ = 0"):
        np.testing.assert_allclose(kept["model"], final["model"], atol=0.02)
    assert len(drawn.judgements) == 3
    text = texts_of(redrawn("bn-figure2", published, drawn))
    assert all(label in text for label in rows)
    assert "n = 16 validation sentences" in text
    assert "before training" in text


def moment(model: np.ndarray, inference: np.ndarray, step: int | None = None) -> dict[str, Any]:
    return {"step": step, "model": short(model), "inference": short(inference)}


def test_what_lagging_looks_like() -> None:
    published = load_published("bn-figure1")
    x, nothing = np.linspace(-1, 1, 50), np.zeros(50)
    start, lags = moment(0.01 * x, 0.02 * x, 0), moment(x, 0.1 * x, 100)
    good, gone = moment(x, 1.1 * x), moment(0.01 * x, nothing)
    normed = [row.label for row in published.rows if row.label != "VAE"]
    rows = {"VAE": [start, lags, gone], **{label: [start, good] for label in normed}}
    assert [j.verdict for j in lagging._judge(published, rows)] == ["reproduced"] * 5
    rows["VAE"] = [start, good]
    rows[normed[0]] = [start, moment(x[::-1], 2 * x)]
    told = [j.verdict for j in lagging._judge(published, rows)]
    assert told == [
        "reproduced", "not reproduced", "not reproduced", "not reproduced", "not reproduced"
    ]  # fmt: skip

    scales = load_published("bn-figure2")
    by_gamma = {"γ = 1": [good], "γ = 0.5": [moment(0.5 * x, 0.5 * x)], "γ = 0": [gone]}
    judged = batch_norm_scale._judge(scales, by_gamma)
    assert [j.verdict for j in judged] == ["undecided", "reproduced", "reproduced"]
    by_gamma["γ = 0.5"] = [moment(0.7 * x, 0.7 * x)]
    assert batch_norm_scale._judge(scales, by_gamma)[0].verdict == "reproduced"


def test_snapshots_know_the_means_of_the_models_own_posterior(tmp_path: Path) -> None:
    recipe = small_recipe("latents.z.dim=1")
    model, corpus = new_model(recipe, corpora()[2]), corpora()[1]
    found = take_snapshot(model, corpus, 3, model_means=True)
    exact = posterior_means(model, corpus)
    assert found.model_means is not None
    np.testing.assert_allclose(found.model_means, exact.model, atol=1e-3)
    np.testing.assert_allclose(found.means[:, 0], exact.approximate, atol=1e-6)
    write_snapshot(found, tmp_path / "a.npz")
    again = read_snapshot(tmp_path / "a.npz").model_means
    np.testing.assert_array_equal(again, found.model_means)
    assert take_snapshot(model, corpus, 3).model_means is None
    wide = new_model(small_recipe(), corpora()[2])
    assert take_snapshot(wide, corpus, 3, model_means=True).model_means is None


def mixture_snapshot(apart: float, distance: float, step: int) -> Snapshot:
    """Four components, ``apart`` deviations from one another, and sentences about them."""
    draw = np.random.default_rng(step)
    centres = apart * np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    component = np.arange(400) % 4
    means = centres[component] + distance * draw.standard_normal((400, 2))
    return Snapshot(
        "z", step, means.astype(np.float32), component[:, None], None, (), centres[None],
        np.ones((1, 4, 2), np.float32), None,
    )  # fmt: skip


def test_mode_collapse_in_two_dimensions(tmp_path: Path) -> None:
    published = load_published("dem-figure4")
    runs = Made(lambda _row, _corpus, _seed: ({}, []), tmp_path)
    final = {
        "GM-VAE": (0.01, 1.0), "DGM-VAE": (6.0, 0.8), "GM-VAE + Lmi": (6.0, 0.1),
        "DGM-VAE + Lmi": (6.0, 0.8),
    }  # fmt: skip
    for row, (apart, distance) in final.items():
        for step in (0, 300, 1000, 1500):
            found = mixture_snapshot(apart if step else 3.0, distance, step)
            write_snapshot(found, snapshot_path(runs.run(row, "", 0) / FOLDER, step))
    drawn = FIGURES["dem-figure4"].compute(published, runs)
    assert verdicts(drawn) == ["reproduced"] * 4
    moments = drawn.values["panels"]["GM-VAE"]
    assert [m["step"] for m in moments] == [300, 1500]
    assert len(moments[0]["means"]) == len(moments[0]["component"]) == 300
    assert moments[1]["distinct"] == pytest.approx(1, abs=0.01)
    assert drawn.values["panels"]["DGM-VAE"][1]["distinct"] == pytest.approx(4, abs=0.01)
    assert drawn.values["panels"]["GM-VAE + Lmi"][1]["distance"] == pytest.approx(0.1, rel=0.1)
    figure = redrawn("dem-figure4", published, drawn)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles[:4] == [f"{row}, 300 updates" for row in drawn.values["panels"]]
    for early, late in zip(figure.axes[:4], figure.axes[4:], strict=True):
        assert early.get_xlim() == late.get_xlim()  # one latent space, one scale


def test_features_of_three_units(tiny: Callable[[str], Made]) -> None:
    runs, published = tiny("pool-figure2"), load_published("pool-figure2")
    drawn = FIGURES["pool-figure2"].compute(published, runs)
    for label, points in drawn.values["rows"].items():
        vae = runs.model(label, "", 0)
        texts = [json.loads(line)["text"] for line in runs.files("")["validation"].open()]
        batch = next(iter(vae._batches(texts[:1], 1)))
        with torch.no_grad():
            found = vae.model.eval().infer(batch)["z"].features[0]
        np.testing.assert_allclose(points[0], found, rtol=6e-3, atol=1e-4)
    figure = redrawn("pool-figure2", published, drawn)
    left, right = figure.axes
    assert left.get_xlim() == right.get_xlim()
    assert len(drawn.judgements) == 2


def test_a_wider_encoder_has_no_such_picture(tiny: Callable[[str], Made]) -> None:
    runs, published = tiny("twr-figure2"), load_published("pool-figure2")
    rows = {"SeqVAE": "BN-VAE", "SeqVAE + MaxPool": "BN-VAE"}
    wide = Made(runs.measure, runs.folder)
    wide.model = lambda row, corpus, seed: runs.model(rows[row], corpus, seed)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="3 hidden units"):
        FIGURES["pool-figure2"].compute(published, wide)


def test_interpolation_of_all_seeds(tiny: Callable[[str], Made]) -> None:
    runs, published = tiny("twr-figure2"), load_published("twr-figure2")
    drawn = FIGURES["twr-figure2"].compute(published, Made(runs.measure, runs.folder, (0, 1)))
    own = drawn.values["rows"]["TWR-VAE"]
    assert own["shares"] == short(np.linspace(0, 1, 11))
    assert (own["pairs"], own["seeds"]) == (15, 2)
    assert np.shape(own["means"]["l"]) == np.shape(own["errors"]["l"]) == (2, 11)
    assert len(drawn.judgements) == 2
    figure = redrawn("twr-figure2", published, drawn)
    np.testing.assert_allclose(
        np.asarray(figure.axes[0].lines[2].get_ydata()), own["means"]["1"][0]
    )
    assert "n = 15 pairs" in texts_of(figure)


def test_what_a_smooth_way_is() -> None:
    published = load_published("twr-figure2")
    down = np.linspace(60, 10, 11)

    def row(curve: np.ndarray, error: float) -> dict[str, Any]:
        both = [curve.tolist(), curve[::-1].tolist()]
        names = ("1", "2", "l")
        return {
            "shares": np.linspace(0, 1, 11).tolist(),
            "means": dict.fromkeys(names, both),
            "errors": dict.fromkeys(names, np.full((2, 11), error).tolist()),
        }

    def told(curve: np.ndarray, error: float = 0.5) -> list[str]:
        rows = {"TWR-VAE": row(curve, error), "BN-VAE": row(down - 5, error)}
        return [judgement.verdict for judgement in judge_curves(published, rows)]

    assert told(down) == ["reproduced", "reproduced"]
    jump = np.where(np.arange(11) < 5, 60.0, 10.0)
    assert told(jump)[0] == "not reproduced"
    assert told(down, 10.0)[1] == "undecided"
    assert told(down - 20)[1] == "not reproduced"


def test_sentences_on_the_way(tiny: Callable[[str], Made]) -> None:
    runs, published = tiny("twr-figure2"), load_published("twr-table4")
    drawn = FIGURES["twr-table4"].compute(published, runs)
    values = drawn.values
    texts = [json.loads(line)["text"] for line in runs.files("")["test"].open()]
    assert all(end in texts for end in values["sentences"])
    vae = runs.model("TWR-VAE", "", 0)
    assert values["rows"]["TWR-VAE"] == vae.interpolate(*values["sentences"], 6, max_length=40)
    assert drawn.markdown.count("\n| 0.4 |") == 1
    assert "unknown words" in drawn.markdown
    assert verdicts(drawn)[1] == "cannot be compared"
    assert FIGURES["twr-table4"].draw(published, values) is None


def test_unknown_words_are_counted_and_survive_markdown() -> None:
    published = load_published("twr-table4")

    class Written:
        tokenizer = type("T", (), {"tokens": ["<pad>", "<unk>", "<s>", "</s>"]})

    share, error = _unknown(Written(), [["a <unk>", "b c"], ["<unk> a", "b <unk>"]])  # type: ignore[arg-type]
    assert share == pytest.approx(3 / 8)
    assert error == pytest.approx(0.125, abs=1e-6)
    worse = judge_examples(published, {"TWR-VAE": (0.2, 0.01), "BN-VAE": (0.1, 0.01)})
    assert worse[0].verdict == "not reproduced"
    even = judge_examples(published, {"TWR-VAE": (0.1, 0.1), "BN-VAE": (0.2, 0.1)})
    assert even[0].verdict == "undecided"
    assert _plain("a <unk> *b*") == "a &lt;unk> \\*b\\*"


def test_the_history_has_the_cosine_of_the_features(tmp_path: Path) -> None:
    recipe = small_recipe("training.max_epochs=2")
    model, history = train(tmp_path / "run", recipe)
    validation = corpora()[1]
    assert len(validation) <= COSINE_SENTENCES
    found = sentence_features(model, validation)
    assert found is not None
    best = history.rows[history.best_epoch - 1]
    assert best["validation/cosine"] == pytest.approx(cosine_similarity(*found).value, abs=1e-6)
