"""Figures of the probes: what they draw, and the file that a run's figure becomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from uncollapse import TextVAE
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError
from uncollapse.evaluation.interpolation import ROUGE, Interpolation
from uncollapse.evaluation.lagging import PosteriorMeans
from uncollapse.evaluation.likelihood import SentenceScores
from uncollapse.evaluation.word_order import ShuffledLikelihood
from uncollapse.model import Model
from uncollapse.plots import to_svg
from uncollapse.plots.overview import training_overview
from uncollapse.plots.probes import (
    VIOLINS,
    accuracy_by_labels,
    aggregate_posterior,
    apart,
    interpolation_curves,
    lagging,
    shuffled_likelihood,
)
from uncollapse.report.figures import FIGURES, plot_run

TEXTS = ["a", "b a", "c a b", "a a a a", "c c", "b", "d a c b a", "a b c d"]
SHARES = np.linspace(0, 1, 11)


def texts_of(figure: Figure) -> str:
    """Everything written in a figure, also where no axis is."""
    return to_svg(figure, "a figure")


def interpolation(height: float, pairs: int = 4) -> Interpolation:
    start = np.broadcast_to(height * (1 - SHARES), (pairs, 11))
    scores = np.stack([start, start[:, ::-1]], 1)  # (P, 2, A)
    return Interpolation(SHARES, dict.fromkeys(ROUGE, scores), 9)


def likelihood(shift: float, count: int = 50) -> ShuffledLikelihood:
    nats = np.random.default_rng(0).normal(100, 20, count)

    def scores(values: np.ndarray) -> SentenceScores:
        return SentenceScores(-values, -values, 5, 5, np.full(count, 9))

    return ShuffledLikelihood(scores(nats), scores(nats + shift))


def test_interpolation_curves_are_drawn_as_they_are() -> None:
    figure = interpolation_curves({"twr-vae": interpolation(60), "vae": interpolation(20, 1)})
    assert [axes.get_title("left") for axes in figure.axes] == ["ROUGE-1", "ROUGE-2", "ROUGE-L"]
    for axes in figure.axes:
        assert len(axes.lines) == 4
        drawn = np.array([line.get_ydata() for line in axes.lines])
        np.testing.assert_allclose(drawn[0], 60 * (1 - SHARES))
        np.testing.assert_allclose(drawn[3], 20 * SHARES)
        assert axes.get_ylim()[0] == 0
    svg = texts_of(figure)
    assert all(word in svg for word in ("twr-vae", "vae", "with the first sentence", "α"))


def test_lagging_is_drawn_in_standard_deviations_on_equal_axes() -> None:
    model = np.linspace(-3, 3, 40)
    figure = lagging(PosteriorMeans(0.1 * model, model, 2.0), title="vae")
    axes = figure.axes[0]
    points: Any = axes.collections[0].get_offsets()
    np.testing.assert_allclose(points[:, 0], model / 2)
    np.testing.assert_allclose(points[:, 1], 0.05 * model)
    assert axes.get_xlim() == axes.get_ylim() == (-2.5, 2.5)
    # a collapsed model is a dot in the middle, not a cloud that fills the picture
    small = lagging(PosteriorMeans(1e-3 * model, 1e-3 * model, 1.0))
    assert small.axes[0].get_xlim() == (-2.5, 2.5)
    outside = np.append(model, [40.0, 50, 60])
    assert "7% of the sentences lie outside" in texts_of(
        lagging(PosteriorMeans(outside, outside, 1))
    )


def test_the_aggregate_shows_the_dimensions_that_miss_the_prior_first() -> None:
    random = np.random.default_rng(0)
    prior = random.normal(size=(2000, VIOLINS + 3))
    samples = random.normal(size=prior.shape)
    samples[:, 7] += 2
    samples[:, 4] *= 0.3
    axes = aggregate_posterior(samples, prior).axes[0]
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names[:2] == ["8", "5"]
    assert len(names) == VIOLINS
    assert f"({VIOLINS} of {VIOLINS + 3})" in axes.get_xlabel()
    assert len(axes.collections) == VIOLINS
    few = aggregate_posterior(samples[:, :1], prior[:, :1]).axes[0]
    assert "of" not in few.get_xlabel()


def test_accuracies_stand_on_a_logarithmic_axis_with_their_errors() -> None:
    systems = {
        "vae": {100: (0.6, 0.02), 1000: (0.7, None)},
        "bn-vae": {100: (0.8, 0.02), 10_000: (0.9, 0.01)},
    }
    figure = accuracy_by_labels(systems)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "1,000", "10,000"]
    assert len(axes.containers) == 2
    assert [note.get_text() for note in axes.texts] == ["vae", "bn-vae"]


def test_names_beside_lines_do_not_cover_each_other() -> None:
    for heights in ([0.5, 0.5, 0.5], [0.9, 0.1, 0.11], [0.2], []):
        moved = apart(heights, 0.0, 1.0)
        assert np.all(np.diff(np.sort(moved)) > 0.06)
        assert np.mean(moved or [0]) == pytest.approx(np.mean(heights or [0]))
    assert apart([0.1, 0.9], 0.0, 1.0) == [0.1, 0.9]


def test_pairs_of_likelihoods_say_their_difference() -> None:
    figure = shuffled_likelihood({"vae": likelihood(0), "max-pool-vae": likelihood(0.7)})
    svg = texts_of(figure)
    assert "+0.00 ± 0.00" in svg
    assert "+0.70 ± 0.00" in svg
    assert "words in place" in svg
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "vae",
        "max-pool-vae",
    ]
    assert "+0.70" in texts_of(shuffled_likelihood({"vae": likelihood(0.7, count=1)}))


HISTORY = [
    {
        "epoch": epoch,
        "validation/kl": 0.01 * epoch,
        "validation/mi/z": 0.01,
        "validation/mi/c": 0.01 * epoch,
        "validation/active_units/z": 3.0,
        "validation/elbo": -50.0 + epoch,
        "validation/reconstruction": -49.0 + epoch,
    }
    for epoch in (1, 2, 3)
]


def test_overview_of_training() -> None:
    figure = training_overview(HISTORY, title="vae")
    assert [axes.get_title("left") for axes in figure.axes] == [
        "Information in z",
        "Active units",
        "ELBO and reconstruction",
    ]
    kl, mi = figure.axes[0].lines
    np.testing.assert_allclose(np.asarray(kl.get_ydata()), [0.01, 0.02, 0.03])
    np.testing.assert_allclose(np.asarray(mi.get_ydata()), [0.02, 0.03, 0.04])  # of both latents
    assert figure.axes[0].get_ylim()[1] >= 1  # a KL of 0.03 does not fill the picture
    only = training_overview(HISTORY, quantities=["elbo"])
    assert [axes.get_title("left") for axes in only.axes] == ["ELBO"]
    with pytest.raises(UserError, match="no history"):
        training_overview([])
    with pytest.raises(UserError, match="no history"):
        training_overview(HISTORY, quantities=[])


# --- plot_run ---------------------------------------------------------------------------------


def untrained(name: str, dim: int = 1, history: Sequence[dict[str, Any]] = HISTORY) -> TextVAE:
    """A random model of a tiny vocabulary."""
    sizes = ["decoder.hidden_dim=6", "decoder.embedding_dim=5", "decoder.init_scale=1.5"]
    if name != "lstm-lm":
        sizes += ["encoder.hidden_dim=6", "encoder.embedding_dim=5", f"latents.z.dim={dim}"]
    vae = TextVAE.from_recipe(name, overrides=sizes)
    vae._tokenizer = Tokenizer.train(TEXTS, "whitespace", None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae._model = Model(vae.recipe, len(vae.tokenizer))
    vae.history_ = list(history)
    return vae


@pytest.mark.parametrize("what", [name for name in FIGURES if name != "components-over-training"])
@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_every_figure_becomes_a_file(tmp_path: Path, what: str, suffix: str) -> None:
    out = tmp_path / f"figure{suffix}"
    assert plot_run(untrained("vae"), what, TEXTS, out) == out
    start = out.read_bytes()[:400]
    assert {".svg": b"<svg", ".png": b"PNG", ".pdf": b"%PDF"}[suffix] in start


def test_classes_are_named_in_the_latent_space(tmp_path: Path) -> None:
    data = tmp_path / "test.csv"
    rows = [f"{text},{'left' if row % 2 else 'right'}" for row, text in enumerate(TEXTS)]
    data.write_text("\n".join(["text,label", *rows]), encoding="utf-8")
    plot_run(untrained("vae", dim=3), "latent-space", str(data), tmp_path / "classes.svg")
    svg = (tmp_path / "classes.svg").read_text(encoding="utf-8")
    assert "left" in svg
    assert "right" in svg
    assert "vae: KL" in svg


def test_the_training_figure_needs_no_sentences(tmp_path: Path) -> None:
    plot_run(untrained("lstm-lm"), "training", None, tmp_path / "lm.svg")
    svg = (tmp_path / "lm.svg").read_text(encoding="utf-8")
    assert "ELBO" in svg
    assert "KL" not in svg
    plot_run(untrained("autoencoder"), "training", None, tmp_path / "autoencoder.svg")
    assert "ELBO" not in (tmp_path / "autoencoder.svg").read_text(encoding="utf-8")


def test_the_same_seed_draws_the_same_picture(tmp_path: Path) -> None:
    vae = untrained("vae", dim=3)
    for number in (1, 2):
        plot_run(vae, "aggregate-posterior", TEXTS, tmp_path / f"{number}.png")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    plot_run(vae, "aggregate-posterior", TEXTS, tmp_path / "3.png", seed=1)
    assert (tmp_path / "1.png").read_bytes() != (tmp_path / "3.png").read_bytes()


def test_mistakes_are_found_before_anything_is_computed(tmp_path: Path) -> None:
    vae, language_model = untrained("vae", dim=2), untrained("lstm-lm")
    out = tmp_path / "figure.svg"
    missing = "no such file.txt"  # would be the error of whatever reads it
    with pytest.raises(UserError, match="did you mean 'lagging'"):
        plot_run(vae, "laging", missing, out)
    with pytest.raises(UserError, match=r"must end in \.svg, \.pdf or \.png"):
        plot_run(vae, "lagging", missing, tmp_path / "figure.jpeg")
    with pytest.raises(UserError, match="no folder"):
        plot_run(vae, "lagging", missing, tmp_path / "nowhere" / "figure.svg")
    with pytest.raises(UserError, match="seed"):
        plot_run(vae, "lagging", missing, out, seed=-1)
    with pytest.raises(UserError, match="needs sentences"):
        plot_run(vae, "lagging", None, out)
    with pytest.raises(UserError, match="language model"):
        plot_run(language_model, "latent-space", missing, out)
    with pytest.raises(UserError, match="1 dimension"):
        plot_run(vae, "lagging", TEXTS, out)
    with pytest.raises(UserError, match="no KL"):
        plot_run(untrained("autoencoder"), "kl-per-dimension", TEXTS, out)
    assert not list(tmp_path.iterdir())
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="exists already"):
        plot_run(vae, "kl-per-dimension", missing, out)
    assert out.read_text(encoding="utf-8") == "mine"
