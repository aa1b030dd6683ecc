"""A non-finite step is named and not taken; process-wide settings do not change results."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from training_support import corpora, new_model, same, small_recipe, train

from uncollapse import tuning
from uncollapse.errors import RunError, UserError
from uncollapse.model import Model
from uncollapse.objectives import Objective
from uncollapse.objectives.schedules import final_weight
from uncollapse.terms import Terms
from uncollapse.training.monitor import CollapseMonitor
from uncollapse.training.placement import Placement


class Spoil(Callback):
    """Spoils a quantity of one training batch, and keeps the parameters of before."""

    def __init__(self, at: int, what: str) -> None:
        self.at = at
        self.what = what
        self.before: dict[str, torch.Tensor] = {}
        self.rows: list[int] = []
        self.model: Model | None = None

    def on_train_batch_start(self, _trainer: Any, module: Any, batch: Any, _index: int) -> None:
        if module.state.batches_seen + 1 != self.at:
            return
        self.model = module.model
        self.before = {name: p.detach().clone() for name, p in module.model.named_parameters()}
        self.rows = sorted(batch.index[:2].tolist())
        if self.what == "gradient":
            module.model.decoder.output.weight.register_hook(lambda grad: grad * torch.inf)
            return
        forward = module.model.forward

        def spoiled(batch: Any, *given: Any) -> Terms:
            terms = forward(batch, *given)
            bad = torch.zeros(batch.size)
            bad[:2] = torch.nan
            if self.what == "kl":
                return replace(
                    terms,
                    kl={"z": terms.kl["z"] + bad[:, None]},
                    divergence={"z": terms.divergence["z"] + bad},
                )
            return replace(terms, reconstruction=terms.reconstruction + bad)

        module.model.forward = spoiled


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("kl", "non-finite KL of latent z, sentences {rows} in batch 10 (epoch 2)"),
        ("reconstruction", "non-finite reconstruction, sentences {rows} in batch 10 (epoch 2)"),
        ("gradient", "non-finite gradient of parameter decoder.output.weight, sentences"),
    ],
)
def test_a_nonfinite_step_is_named_and_not_taken(what: str, said: str, tmp_path: Path) -> None:
    spoil = Spoil(10, what)
    with pytest.raises(RunError) as error:
        train(tmp_path, callbacks=[spoil])
    text = str(error.value)
    assert said.format(rows=", ".join(map(str, spoil.rows))) in text
    assert "\n" not in text
    assert spoil.model is not None
    after = dict(spoil.model.named_parameters())
    assert all(torch.equal(spoil.before[name], after[name]) for name in spoil.before)


def test_what_was_saved_before_a_nonfinite_step_is_still_there(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        train(tmp_path, callbacks=[Spoil(10, "kl")])
    _, history = train(tmp_path, resume=True)
    _, whole = train(tmp_path / "whole")
    assert [r["train/loss"] for r in history.rows] == [r["train/loss"] for r in whole.rows]


def test_an_unknown_device_is_a_user_error() -> None:
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        Placement.find("gpu")


def test_clipping_is_pytorchs(tmp_path: Path) -> None:
    clipped, _ = train(
        tmp_path / "a",
        small_recipe(
            "training.max_epochs=1",
            "training.clip_norm=1e-3",
            "training.optimizer=sgd",
            "training.learning_rate=1.0",
            "decoder.output_dropout=0",
            "training.batch_size=128",
        ),
    )
    recipe = small_recipe()
    start = new_model(recipe, corpora()[2])
    moved = torch.cat(
        [
            (a - b).detach().flatten()
            for a, b in zip(clipped.parameters(), start.parameters(), strict=True)
        ]
    )
    # one batch, one step of size 1 along a gradient of norm 1e-3
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-2)


def test_progress_and_lightning_are_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, small_recipe("training.max_epochs=1"))
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_bf16_trains_and_keeps_f32_weights(tmp_path: Path) -> None:
    model, history = train(
        tmp_path, small_recipe("training.max_epochs=2", "training.precision=bf16")
    )
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(float(r["train/loss"] or 0) < 40 for r in history.rows)


def test_the_probe_tells_f32_from_bf16() -> None:
    true_f32 = tuning.product_error("ieee")
    assert true_f32 < tuning.LARGEST_ERROR
    a, b = torch.randn(64, 256), torch.randn(256, 64)
    exact = a.double() @ b.double()
    rounded = (a.bfloat16() @ b.bfloat16()).double()
    assert (rounded - exact).norm() / exact.norm() > tuning.LARGEST_ERROR


def test_the_product_setting_is_used_only_if_exact_and_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = tuning.MATMUL.fp32_precision
    for exact in (True, False):
        monkeypatch.setattr(tuning, "fast_products_are_exact", lambda exact=exact: exact)
        with tuning.tuned_process():
            assert tuning.MATMUL.fp32_precision == ("bf16" if exact else before)
        assert tuning.MATMUL.fp32_precision == before


def test_memory_setting_is_for_glibc_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert tuning.keep_freed_memory.__wrapped__() is False


def test_package_and_verdict_import_without_lightning() -> None:
    code = (
        "import sys, uncollapse, uncollapse.training.verdict, uncollapse.training.signals;"
        "sys.exit(any(name.split('.')[0] in ('torch', 'lightning') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_training_does_not_depend_on_the_callers_random_state(tmp_path: Path) -> None:
    recipe = small_recipe("training.max_epochs=1")
    torch.manual_seed(1)
    first, _ = train(tmp_path / "a", recipe)
    torch.manual_seed(2)
    second, _ = train(tmp_path / "b", recipe)
    assert same(first.state_dict(), second.state_dict())


def test_kernel_caches_are_bounded_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "500")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    tuning.bound_kernel_caches()
    assert os.environ["LRU_CACHE_CAPACITY"] == "500"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "256"


def test_the_monitor_speaks_once_per_change_of_state() -> None:
    lines: list[str] = []
    monitor = CollapseMonitor(lines.append)
    state = SimpleNamespace(batches_seen=1000, rows=[], warned={})
    recipe = small_recipe("latents.z.dim=8")
    objective = Objective(recipe.objective)
    module: Any = SimpleNamespace(
        state=state,
        kl_weight=final_weight(objective.schedule),
        objective=objective,
        model=new_model(recipe, 30),
    )
    trainer: Any = SimpleNamespace(is_global_zero=True)
    course = [(3.0, 2.5, 5), (2.9, 2.5, 5), (0.02, 0.0, 0), (0.01, 0.0, 0), (3.0, 2.0, 4)]
    for epoch, (kl, mi, active) in enumerate(course, 1):
        found = {"kl/z": kl, "mi/z": mi, "active_units/z": active}
        row = {f"validation/{name}": value for name, value in found.items()}
        state.rows.append({"epoch": epoch, **row})
        monitor.on_train_epoch_end(trainer, module)
    assert len(lines) == 2
    assert lines[0].startswith("epoch 3: latent z is collapsed (KL 0.02 nats, mutual information")
    assert "bn-vae" in lines[0]
    assert lines[1] == (
        "epoch 5: latent z is alive (KL 3.00 nats, mutual information 2.00 nats, "
        "4 of 8 units active)"
    )
