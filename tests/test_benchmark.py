"""The plain references are the package's models, and the speed benchmark runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import VOCABULARY, make_batch, random_sentences
from torch import Tensor

from uncollapse.config import Recipe
from uncollapse.data.batches import Batch
from uncollapse.data.tokenizer import EOS, PAD
from uncollapse.encoders import attention
from uncollapse.evaluation.passes import evaluating
from uncollapse.evaluation.posterior_draws import SentenceDraws
from uncollapse.model import Model
from uncollapse.objectives.objective import Objective
from uncollapse.objectives.schedules import Progress

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import speed  # noqa: E402
import speed_flops  # noqa: E402
import speed_settings  # noqa: E402
import speed_variants  # noqa: E402
from plain import prefixes, sampling, vae  # noqa: E402

SEED = 3
SETTINGS = speed_settings.Settings(
    Path("nowhere"), embedding_dim=5, hidden_dim=8, latent_dim=4, own_sizes=False
)
NO_DROPOUT = {"embedding_dropout": 0.0, "output_dropout": 0.0, "dropout": 0.0}
FAMILIES = ("lstm", "gru", "bidirectional", "twr", "mixture", "dialogue", "transformer")


def pair(family: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Recipe, Model, torch.nn.Module]:
    """The package's model and the plain one with the same weights, without dropout."""
    whole = speed_settings.recipe(SETTINGS, family)
    for side in ("encoder", "decoder"):
        part = getattr(whole, side)
        changes = {key: 0.0 for key in NO_DROPOUT if hasattr(part, key)}
        whole = whole.model_copy(update={side: part.model_copy(update=changes)})
    if family == "mixture":
        few = whole.objective.model_copy(update={"samples": 3})
        whole = whole.model_copy(update={"objective": few})
    monkeypatch.setattr(speed_settings, "recipe", lambda *_: whole)
    monkeypatch.setattr(speed_settings, "tokenizer", lambda *_: range(VOCABULARY))
    # the plain transformer knows positions by a table, which starts at zero
    monkeypatch.setattr(attention, "rotation", no_rotation)
    model = speed_settings.build_model(SETTINGS, family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5)
        for table in model.embeddings():
            table.weight[PAD].zero_()
    monkeypatch.setattr(speed_settings, "build_model", lambda *_, **__: model)
    return whole, model, speed_settings.build_plain(SETTINGS, family)


def no_rotation(positions: Tensor, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    return like.new_ones(len(positions), width // 2), like.new_zeros(len(positions), width // 2)


def batch_of(family: str) -> Batch:
    sentences = random_sentences(6)
    turns = random_sentences(12, seed=1)
    contexts = [turns[2 * row : 2 * row + (row + 1) % 3] for row in range(6)]
    return make_batch(sentences, contexts=contexts if family == "dialogue" else None)


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_reference_has_our_loss_and_gradients(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, model, plain = pair(family, monkeypatch)
    batch = batch_of(family)
    torch.manual_seed(SEED)  # both draw the same noise
    expected = plain.train().loss(batch)
    torch.manual_seed(SEED)
    terms = model.train()(batch)
    loss = Objective(recipe.objective)(terms, batch.total, Progress(0, 1)).total
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    loss.backward()
    expected.backward()
    gradients = {id(p): p.grad for p in plain.parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    plain.load_from(model)  # gradients, by the names that the weights go by
    for name, parameter in plain.named_parameters():
        if "positions" not in name:
            torch.testing.assert_close(
                parameter.data, gradients[id(parameter)], rtol=1e-3, atol=1e-5, msg=name
            )


@pytest.mark.parametrize("family", ["lstm", "vmf", "mixture", "dialogue"])
def test_plain_reference_has_our_likelihood(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At equal draws, of which the package's own are taken."""
    _, model, plain = pair(family, monkeypatch)
    batch = batch_of(family)
    with evaluating(model):
        for row in range(batch.size):
            one = select(batch, row)
            posterior = model.posterior(one)
            assert posterior is not None
            z = SentenceDraws(posterior, SEED, one.index).draw(130)  # (1, S, D)
            condition = model.read(one)
            scores = model.decoder.log_prob_samples(z.float(), one, condition).double()
            ratio = model.log_prior(z, condition) - posterior.map(Tensor.double).log_prob(z)
            ours = float((scores + ratio).logsumexp(1)) - np.log(130)
            found = plain.eval().infer(one)
            expected, error = vae.importance_weighted(plain, one, found, z[0])
            assert ours == pytest.approx(expected, abs=2e-4)
            assert 0 < error < 10


def select(batch: Batch, row: int) -> Batch:
    """One sentence, without padding."""
    rows = torch.tensor([row])
    tokens = batch.tokens[rows, : int(batch.lengths[row])]
    context = None if batch.context is None else batch.context.select(rows)
    return Batch(tokens, batch.lengths[rows], batch.index[rows], {}, 1, context)


def test_plain_sphere_draws_from_its_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    _, model, plain = pair("vmf", monkeypatch)
    batch = select(batch_of("vmf"), 1)
    found = plain.eval().infer(batch)
    z = plain.sample(found, 4000, np.random.default_rng(SEED))
    posterior = model.eval().posterior(batch)
    assert posterior is not None
    torch.testing.assert_close(z.norm(dim=1), torch.ones(4000, dtype=torch.float64))
    torch.testing.assert_close(z.mean(0), posterior.mean[0].double(), atol=0.03, rtol=0)


@pytest.mark.parametrize("family", ["cnn", "transformer"])
def test_plain_prefix_decoders_predict_what_ours_do(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model, plain = pair(family, monkeypatch)
    assert isinstance(plain, prefixes.PlainCNN | prefixes.PlainTransformer)
    z, words = torch.randn(6, 4), batch_of(family).inputs
    with evaluating(model):
        states = model.decoder.states(z, words)
        torch.testing.assert_close(plain.eval().states(words, z), states, rtol=1e-4, atol=1e-4)
        written = sampling.write_by_prefix(plain, z, 5, "greedy")
    assert len(written) == 6
    assert max(map(len, written)) <= 5


def test_plain_samples_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows end at </s> or at the limit, whether or not finished rows leave the batch."""
    _, _, plain = pair("lstm", monkeypatch)
    assert isinstance(plain, vae.PlainVAE)
    for drop_finished in (False, True):
        torch.manual_seed(0)
        written = sampling.write(
            plain, torch.randn(50, 4), 6, "ancestral", drop_finished=drop_finished
        )
        lengths = {len(words) for words in written}
        assert len(written) == 50
        assert max(lengths) <= 6
        assert len(lengths) > 1
        assert not any(EOS in words for words in written)


def test_plain_nucleus_is_the_smallest_set_that_has_the_probability() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(300, -1)
    torch.manual_seed(SEED)
    assert set(sampling.choose(logits, "nucleus")[:, 0].tolist()) == {0, 1, 2}
    assert set(sampling.choose(logits, "greedy")[:, 0].tolist()) == {0}


def test_flops_of_the_common_configuration() -> None:
    """By hand, 6 · [4H(E + H) + 4H(E + Z + H) + HV]."""
    common = speed_settings.Settings(Path("nowhere"))
    by_hand = 6 * (4 * 256 * (512 + 256) + 4 * 256 * (512 + 32 + 256) + 256 * 10_002)
    assert by_hand / 1e6 == pytest.approx(25.0, abs=0.05)
    recipe = speed_settings.recipe(common, "lstm")
    assert speed_flops.training_flops(recipe, 10_002) == by_hand
    scored = 2 * 500 * (4 * 256 * (512 + 32 + 256) + 256 * 10_002)
    assert speed_flops.scoring_flops(recipe, 10_002, 500) == scored
    both = speed_settings.recipe(common, "bidirectional")
    more = 6 * 4 * 256 * (512 + 256)
    assert speed_flops.training_flops(both, 10_002) == by_hand + more


def test_flops_of_the_other_families() -> None:
    common = speed_settings.Settings(Path("nowhere"))
    mixture = speed_settings.recipe(common, "mixture")
    decoder = 3 * 256 * (512 + 32 + 256) + 256 * 10_002
    by_hand = 6 * (2 * 3 * 256 * (512 + 256) + 20 * decoder)
    assert speed_flops.training_flops(mixture, 10_002) == by_hand
    transformer = speed_settings.recipe(common, "transformer")
    # attention 4 H², MLP 8 H² a layer
    by_hand = 6 * (512 * 256 + 544 * 256 + (2 + 4) * 12 * 256**2 + 256 * 10_002)
    assert speed_flops.training_flops(transformer, 10_002) == by_hand
    dialogue = speed_settings.recipe(common, "dialogue")
    reader, above = 2 * 3 * 300 * (200 + 300), 3 * 600 * (600 + 600)
    decoder = 3 * 400 * (200 + 400) + 400 * 10_004
    by_hand = 6 * (reader + decoder + 5 * reader + 0.25 * above)
    context = speed_flops.Context(tokens=5, turns=0.25)
    assert speed_flops.training_flops(dialogue, 10_004, context) == by_hand
    cnn = speed_settings.recipe(common, "cnn")
    block = 256 * 128 + 3 * 128 * 128 + 128 * 256
    by_hand = 2 * 500 * (544 * 256 + 3 * block + 256 * 10_002)
    assert speed_flops.scoring_flops(cnn, 10_002, 500) == by_hand


def test_workloads_are_chosen_by_name_or_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(speed.choose(SETTINGS, None)) == 17
    assert speed.choose(SETTINGS, ["start-up", "likelihood"])[0] == "likelihood-gaussian"
    with pytest.raises(SystemExit) as stop:
        speed.main(["--only", "training-lsmt"])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: unknown workload 'training-lsmt'; did you mean 'training-lstm'?\n"


def test_kernels_are_compared_where_there_are_any() -> None:
    with_kernels = speed_settings.Settings(Path("nowhere"), kernels=True)
    found = speed_variants.workloads(with_kernels)["training-gru"].variants
    assert [variant.kernels for variant in found.values()] == [True, True, False, True, False]


@pytest.mark.slow
def test_speed_benchmark_runs(tmp_path: Path) -> None:
    """From beginning to end at toy sizes; of the figures, only that they are there."""
    # each kind of worker, each kind of model
    chosen = ["training-lstm", "training-mixture", "training-dialogue", "likelihood"]
    chosen += ["sampling-lstm-nucleus", "sampling-transformer-ancestral", "start-up"]
    command = [sys.executable, BENCHMARKS / "speed.py", "--tiny", "--epoch", "--only", *chosen]
    command += ["--json", tmp_path / "out.json"]
    # other tests may run beside this one, and half of the variants are enough
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "UNCOLLAPSE_KERNELS": "off"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    known = speed_variants.workloads(speed_settings.Settings(tmp_path, kernels=found["kernels"]))
    there = speed_settings.corpus_folder("dailydialog") is not None
    expected = {
        name: workload
        for name, workload in known.items()
        if (name in chosen or workload.kind in chosen) and (there or workload.family != "dialogue")
    }
    assert {name: list(turns) for name, turns in found["rounds"].items()} == {
        name: list(workload.variants) for name, workload in expected.items()
    }
    for variants in found["rounds"].values():
        for turns in variants.values():
            assert all(turn["count"] > 0 and turn["peak_mb"] > 0 for turn in turns)
    for name in ("gaussian", "mixture", *(["conditional"] if there else [])):
        plain, ours, *_ = found["rounds"][f"likelihood-{name}"].values()
        for turn, reference in zip(ours, plain, strict=True):
            assert turn["figures"] == pytest.approx(reference["figures"], abs=1e-3)
    assert all(min(rates.values()) > 0 for rates in found["limits"].values())
    for name, rounds in found["limits by round"].items():
        assert len(rounds) == (0 if name.startswith("sampling") else 1)
        assert all(min(rates) > 0 for rates in rounds)
    assert found["epoch"]["tokens"] > 0
    assert {"commit", "date", "torch", "hardware", "seed", "command"} <= set(found)
    assert "skipped" in done.stdout or there
