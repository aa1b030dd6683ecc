"""Snapshots of the latent space: what they hold, and that training goes on as without them."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from training_support import BATCHES, SignalAt, corpora, last_payload, new_model, same, train
from training_support import small_recipe as small_vae

from uncollapse.config import Recipe
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import RunError, UserError
from uncollapse.evaluation import snapshot
from uncollapse.evaluation.snapshot import (
    FINISHED,
    Snapshot,
    read_snapshot,
    read_snapshots,
    snapshot_path,
    take_snapshot,
    write_snapshot,
)
from uncollapse.latents import Latent
from uncollapse.latents.priors import Mixture
from uncollapse.recipes import load_recipe
from uncollapse.training.signals import Interrupted

STEPS = "training.snapshots=[0, 3, 9]"
SMALL = [
    *("encoder.embedding_dim=6", "encoder.hidden_dim=8", "decoder.embedding_dim=6"),
    *("decoder.hidden_dim=6", "training.max_epochs=2", "training.batch_size=16"),
    *("training.precision=f32", "latents.z.dim=2", "objective.samples=1"),
]


def small_mixture(*overrides: str, name: str = "dgm-vae") -> Recipe:
    return load_recipe(name, [*SMALL, "latents.z.groups=3", *overrides])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / snapshot.FOLDER).iterdir())


def equal(a: Snapshot, b: Snapshot) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in Snapshot.__dataclass_fields__]
    return all(np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y for x, y in pairs)


# --- what one holds ---------------------------------------------------------------------------


def test_a_snapshot_of_a_mixture() -> None:
    model = new_model(small_mixture(), corpora()[2]).eval()
    corpus = corpora()[1]
    found = take_snapshot(model, corpus, 7)
    latent = model.latents["z"]
    assert isinstance(latent, Latent)
    prior = latent.prior
    assert isinstance(prior, Mixture)
    assert (found.latent, found.step, found.groups) == ("z", 7, 3)
    assert found.means.shape == (30, 6)
    assert found.component is not None
    assert found.component.shape == (30, 3)
    assert found.component.min() >= 0
    assert found.component.max() < 5
    # of the Gaussian, free parameters are means and log-variances
    mean, log_variance = prior.free.detach().transpose(1, 2).unbind(-1)  # (M, K, U)
    assert found.component_means is not None
    assert found.component_deviations is not None
    np.testing.assert_allclose(found.component_means, mean, rtol=1e-5)
    np.testing.assert_allclose(found.component_deviations, (log_variance / 2).exp(), rtol=1e-5)
    assert found.deviation is None
    assert found.labels is None


def test_sentences_stand_in_the_order_of_the_corpus_whatever_the_batches() -> None:
    model = new_model(small_mixture(), corpora()[2]).eval()
    corpus = corpora()[1]
    one, many = take_snapshot(model, corpus, batch_size=1), take_snapshot(model, corpus)
    np.testing.assert_allclose(one.means, many.means, atol=1e-6)
    assert one.step == FINISHED


@pytest.mark.parametrize(
    ("name", "overrides", "width"),
    [
        ("gamma-mixture-vae", (), 2),
        ("dbm-vae", (), 2),
        ("dcm-vae", ("latents.z.groups=3", "latents.z.posterior.categories=4"), 8),
    ],
)
def test_any_family_has_components(name: str, overrides: tuple[str, ...], width: int) -> None:
    recipe = small_mixture("objective.supervision=[]", *overrides, name=name)
    found = take_snapshot(new_model(recipe, corpora()[2]), corpora()[1])
    assert found.component_means is not None
    assert found.component_deviations is not None
    components = recipe.latents["z"].prior.components  # type: ignore[union-attr]
    assert found.component_means.shape == (3, components, width)
    assert found.component_deviations.shape == (3, components, width)
    assert (found.component_deviations >= 0).all()
    assert found.means.shape[1] == 3 * width


def test_without_a_mixture_there_are_no_components() -> None:
    found = take_snapshot(new_model(small_vae(), corpora()[2]), corpora()[1])
    assert found.component is None
    assert found.component_means is None
    assert found.groups == 1
    assert found.deviation is not None
    np.testing.assert_array_equal(found.deviation, np.ones(3))
    codes = take_snapshot(
        new_model(load_recipe("discrete-vae", [*SMALL[:7], "objective.samples=1"]), corpora()[2]),
        corpora()[1],
    )
    assert codes.deviation is None


def test_at_most_a_thousand_evenly_spread_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a", "b a", "c a b", "a a a a", "c c"] * 6
    tokenizer = Tokenizer.train(texts, "whitespace", None)
    labels: list[str | int | None] = ["x" if n % 2 else None for n in range(len(texts))]
    corpus = Corpus.from_texts(texts, tokenizer, labels={"label": labels})
    model = new_model(small_mixture(), len(tokenizer)).eval()
    every = take_snapshot(model, corpus)
    monkeypatch.setattr(snapshot, "SENTENCES", 4)
    some = take_snapshot(model, corpus)
    np.testing.assert_allclose(some.means, every.means[[0, 10, 19, 29]], atol=1e-6)
    assert some.labels is not None
    assert some.labels.tolist() == [-1, -1, 0, 0]
    assert some.label_names == ("x",)


def test_a_language_model_has_nothing_to_look_at() -> None:
    with pytest.raises(UserError, match="no latent"):
        take_snapshot(new_model(small_vae(name="lstm-lm"), corpora()[2]), corpora()[1])


def test_looking_changes_nothing() -> None:
    model = new_model(small_mixture(), corpora()[2]).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    take_snapshot(model, corpora()[1])
    assert model.training
    assert all(part.training for part in model.modules())
    assert same(dict(model.state_dict()), before)
    assert torch.equal(torch.get_rng_state(), random)


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [small_mixture(), small_vae()])
def test_what_is_written_is_read_again(recipe: Recipe, tmp_path: Path) -> None:
    found = take_snapshot(new_model(recipe, corpora()[2]), corpora()[1], 12)
    path = snapshot_path(tmp_path / "run" / snapshot.FOLDER, 12)
    write_snapshot(found, path)
    assert equal(read_snapshot(path), found)
    assert [part.name for part in path.parent.iterdir()] == ["step-000012.npz"]
    assert [part.step for part in read_snapshots(tmp_path / "run")] == [12]
    assert read_snapshots(tmp_path) == []


def test_a_damaged_snapshot_is_named(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.npz"
    write_snapshot(take_snapshot(new_model(small_vae(), corpora()[2]), corpora()[1], 1), path)
    whole = path.read_bytes()
    spoilt = bytes(byte ^ 90 if 60 < place < 220 else byte for place, byte in enumerate(whole))
    for content in (whole[:200], b"", b"not a zip", spoilt):
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"step-000001\.npz is damaged"):
            read_snapshot(path)


def test_a_disk_that_refuses_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot.os, "fsync", full)
    found = take_snapshot(new_model(small_vae(), corpora()[2]), corpora()[1], 1)
    with pytest.raises(RunError, match="No space left"):
        write_snapshot(found, tmp_path / "step-000001.npz")
    assert not list(tmp_path.iterdir())


# --- training ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without snapshots."""
    folder = tmp_path_factory.mktemp("plain")
    train(folder, small_mixture())
    return folder


def test_training_is_the_same_with_and_without(plain: Path, tmp_path: Path) -> None:
    train(tmp_path, small_mixture(STEPS))
    assert same(last_payload(tmp_path), last_payload(plain))
    assert files(tmp_path) == ["step-000000.npz", "step-000003.npz", "step-000009.npz"]
    assert not (plain / snapshot.FOLDER).exists()
    first, _, last = read_snapshots(tmp_path)
    start = new_model(small_mixture(), corpora()[2]).eval()
    assert equal(first, take_snapshot(start, corpora()[1], 0))
    assert not np.array_equal(first.means, last.means)


def test_a_stopped_run_keeps_what_it_has(plain: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(whole, small_mixture(STEPS))
    with pytest.raises(Interrupted):
        train(stopped, small_mixture(STEPS), callbacks=[SignalAt(4, signal.SIGTERM)])
    assert files(stopped) == ["step-000000.npz", "step-000003.npz"]
    kept = snapshot_path(stopped / snapshot.FOLDER, 3)
    before = kept.stat().st_mtime_ns
    train(stopped, small_mixture(STEPS), resume=True)
    assert same(last_payload(stopped), last_payload(plain))
    assert kept.stat().st_mtime_ns == before
    for one, other in zip(read_snapshots(stopped), read_snapshots(whole), strict=True):
        assert equal(one, other)


def test_what_is_there_is_not_written_again(tmp_path: Path) -> None:
    mark = snapshot_path(tmp_path / snapshot.FOLDER, 3)
    mark.parent.mkdir()
    mark.write_bytes(b"mine")
    train(tmp_path, small_mixture(STEPS, "training.max_epochs=1"))
    assert mark.read_bytes() == b"mine"


def test_of_the_main_stage_and_of_models_with_a_latent(tmp_path: Path) -> None:
    pretrained = small_vae(
        "strategy={kind: pretrained, epochs: 1}", f"training.snapshots=[0, {BATCHES}]",
        "training.max_epochs=1",
    )  # fmt: skip
    train(tmp_path / "two", pretrained)
    assert files(tmp_path / "two") == ["step-000000.npz", f"step-{BATCHES:06d}.npz"]
    assert not (tmp_path / "two" / "pretraining" / snapshot.FOLDER).exists()
    language_model = small_vae("training.snapshots=[0]", "training.max_epochs=1", name="lstm-lm")
    train(tmp_path / "lm", language_model)
    assert not (tmp_path / "lm" / snapshot.FOLDER).exists()


def test_steps_are_checked() -> None:
    assert small_vae("training.snapshots=[9, 0, 3]").training.snapshots == (0, 3, 9)
    for value, message in (
        ("[0, 3, 0]", "0 is there twice"),
        ("[-1]", "greater than or equal to 0"),
        ("[true]", "valid integer"),
        ("200", "should be a list"),
    ):
        with pytest.raises(UserError, match=rf"training\.snapshots.*{message}"):
            small_vae(f"training.snapshots={value}")
