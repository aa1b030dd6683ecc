"""What validation and the monitor say of discrete variables, mixtures and labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import make_batch, random_sentences, small_model

from uncollapse.config import Recipe
from uncollapse.data.batches import Batch
from uncollapse.evaluation.mode_collapse import code_use
from uncollapse.latents import Latent
from uncollapse.latents.priors import Mixture
from uncollapse.model import Model
from uncollapse.objectives import Objective
from uncollapse.recipes import load_recipe
from uncollapse.training.monitor import CollapseMonitor
from uncollapse.training.validation import Validation

SUPERVISION = "[{column: act, variable: z, index: 1, weight: 2.0}]"


def validated(model: Model, recipe: Recipe, batches: list[Batch]) -> dict[str, float]:
    count = sum(batch.size for batch in batches)
    validation = Validation(Objective(recipe.objective), count, "elbo", model)
    model.eval()
    with torch.no_grad():
        for batch in batches:
            validation.add(model(batch), batch)
    return validation.finish()


def test_validation_rows_of_codes_mixtures_and_labels() -> None:
    overrides = ["latents.z.groups=1", "latents.z.prior.components=3"]
    model = small_model("cm-vae", overrides)
    recipe = load_recipe("cm-vae", ["objective.supervision=" + SUPERVISION])
    model.supervision = recipe.objective.supervision
    sentences = random_sentences(30)
    labels = [row % 4 - 1 for row in range(30)]  # every fourth has none
    parts = [slice(0, 13), slice(13, 30)]
    batches = [make_batch(sentences[part], labels={"act": labels[part]}) for part in parts]
    batches[1].index = batches[1].index + 13
    together = make_batch(sentences, labels={"act": labels})
    row = validated(model, recipe, batches)
    whole = validated(model, recipe, [together])
    with torch.no_grad():
        terms = model(together)
    for name, log_probs in terms.variables.items():
        use = code_use(log_probs)
        assert row[f"mi_c/{name}"] == pytest.approx(use.mutual_information, rel=1e-4)
        assert row[f"usage/{name}"] == pytest.approx(use.usage, rel=1e-5)
    assert set(terms.variables) == {"z", "z.component"}
    latent = model.latents["z"]
    assert isinstance(latent, Latent)
    prior = latent.prior
    assert isinstance(prior, Mixture)
    log_weights = terms.variables["z.component"]
    with torch.no_grad():
        variance = prior.weighted_variance(log_weights).sum(1).mean()
    assert row["variance/z"] == pytest.approx(float(variance), rel=1e-4)
    dispersion = terms.mixtures["z"].dispersion.sum((1, 2)).mean()
    assert row["dispersion/z"] == pytest.approx(float(dispersion), rel=1e-4)
    kl_c = terms.mixtures["z"].component.sum(1).mean()
    assert row["kl_c/z"] == pytest.approx(float(kl_c), rel=1e-4)
    assert 1 <= row["components/z"] <= row["usage/z.component"] + 1e-6
    known = torch.tensor(labels) >= 0
    guess = terms.variables["z"][:, 1].argmax(-1)
    right = (guess == torch.tensor(labels))[known].double().mean()
    assert row["accuracy/act"] == pytest.approx(float(right))
    loss = terms.supervision["act"][known].mean()
    assert row["supervision/act"] == pytest.approx(float(loss), rel=1e-5)
    for name in set(row) - {"reconstruction", "elbo", "ppl_elbo", "objective"}:  # these are drawn
        assert row[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-6), name


def test_no_label_no_accuracy_and_no_code_no_row() -> None:
    model = small_model("cm-vae", ["latents.z.groups=1"])
    recipe = load_recipe("cm-vae", ["objective.supervision=" + SUPERVISION])
    model.supervision = recipe.objective.supervision
    sentences = random_sentences(6)
    blank = validated(model, recipe, [make_batch(sentences, labels={"act": [-1] * 6})])
    without = validated(model, recipe, [make_batch(sentences)])
    assert not any(name.endswith("/act") for name in [*blank, *without])
    plain = small_model("vae")
    row = validated(plain, load_recipe("vae"), [make_batch(sentences)])
    assert {name.partition("/")[0] for name in row} == {
        "reconstruction", "kl", "elbo", "ppl_elbo", "objective", "mi", "active_units", "cosine",
    }  # fmt: skip


def test_the_monitor_tells_of_melting_and_of_recovery() -> None:
    lines: list[str] = []
    monitor = CollapseMonitor(lines.append)
    model = small_model("gm-vae", ["latents.z.prior.components=4"])
    objective = Objective(load_recipe("vae", ["objective.weight={kind: constant}"]).objective)
    state = SimpleNamespace(batches_seen=100, rows=[], warned={})
    module: Any = SimpleNamespace(state=state, kl_weight=0.5, objective=objective, model=model)
    trainer: Any = SimpleNamespace(is_global_zero=True)
    apart = {"mi_c": 0.6, "usage": 4.0, "components": 3.8}
    melted = {"mi_c": 0.0, "usage": 4.0, "components": 1.0}
    ignored = {"mi_c": 0.0, "usage": 4.0, "components": 3.8}
    course = [(0.5, ignored), (0.5, melted), (1.0, melted), (1.0, melted), (1.0, ignored)]
    for epoch, (weight, codes_row) in enumerate([*course, (1.0, apart)], 1):
        row: dict[str, Any] = {"epoch": epoch}
        row |= {"validation/kl/z": 3.0, "validation/mi/z": 2.0, "validation/active_units/z": 4}
        for name, value in codes_row.items():
            row[f"validation/{name}/{'z' if name == 'components' else 'z.component'}"] = value
        state.rows.append(row)
        module.kl_weight = weight
        monitor.on_train_epoch_end(trainer, module)
        if epoch == 1:
            assert not lines  # too few batches
            state.batches_seen = 1000
    says = ["is dying", "has mode collapse", "has its codes ignored", "is alive"]
    assert len(lines) == len(says)
    for line, epoch, words in zip(lines, [2, 3, 5, 6], says, strict=True):
        assert line.startswith(f"epoch {epoch}: latent z {words} (KL 3.00 nats")
    assert "at KL weight 0.50" in lines[0]
    assert "dgm-vae" in lines[1]
