"""The object that people hold: what goes in, what comes out, and that saving changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from dialogue_models import BASE
from safetensors.torch import load_file, save_file

from uncollapse import TextVAE
from uncollapse.config import parse_recipe
from uncollapse.data.grammar import assistant_grammar
from uncollapse.errors import RunError, UserError

TINY = (
    "encoder.embedding_dim=16",
    "encoder.hidden_dim=24",
    "decoder.embedding_dim=16",
    "decoder.hidden_dim=24",
    "training.optimizer=adam",
    "training.learning_rate=0.01",
    "training.max_epochs=2",
)
TEXTS = [sample.text for sample in assistant_grammar().sample(300, seed=5)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "bn"
    vae = TextVAE.from_recipe("bn-vae", latent_dim=4, overrides=TINY)
    vae.fit(TEXTS, validation=TEXTS[:60], out=folder, progress=False)
    return folder


@pytest.fixture
def vae(run: Path) -> TextVAE:
    return TextVAE.from_pretrained(run)


def test_a_run_folder_holds_what_the_design_promises(run: Path, vae: TextVAE) -> None:
    names = {path.name for path in run.iterdir()}
    promised = {"config.json", "recipe.yaml", "model.safetensors", "tokenizer.json"}
    assert names >= promised | {"metrics.json", "history.jsonl", "README.md", "training"}
    assert not [name for name in names if name.endswith(".tmp")]
    assert json.loads((run / "config.json").read_text())["format_version"] == 1
    assert [row["epoch"] for row in vae.history_] == [1, 2]
    card = (run / "README.md").read_text()
    assert "# bn-vae" in card
    assert "| kl |" in card
    for metric in json.loads((run / "metrics.json").read_text()).values():
        assert {"value", "unit", "standard_error", "estimator", "samples"} <= set(metric)


def test_vectors_follow_the_order_of_the_sentences(vae: TextVAE) -> None:
    texts = ["play some jazz", "will it rain", "call my mother on the phone please"]
    vectors = vae.encode(texts)
    assert vectors.shape == (3, 4)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(vae.encode([text])[0], vector, atol=1e-5)
    posterior = vae.posterior(texts)
    assert torch.isfinite(posterior.log_variance).all()


def test_unseen_and_single_words_are_encoded(vae: TextVAE) -> None:
    assert np.isfinite(vae.encode(["zyzzyva", "play", "zyzzyva qwerty asdf"])).all()


def test_interpolation_ends_in_the_reconstructions(vae: TextVAE) -> None:
    a, b = "play some jazz", "will it rain"
    path = vae.interpolate(a, b, steps=5)
    assert len(path) == 5
    assert [path[0], path[-1]] == vae.reconstruct([a, b])
    with pytest.raises(UserError, match="at least 2"):
        vae.interpolate(a, b, steps=1)


def test_sampling_follows_the_seed_and_nothing_else(vae: TextVAE) -> None:
    state = torch.get_rng_state()
    first = vae.sample(5, seed=3, top_p=0.8, temperature=0.7)
    assert first == vae.sample(5, seed=3, top_p=0.8, temperature=0.7)
    assert first != vae.sample(5, seed=4, top_p=0.8, temperature=0.7)
    assert vae.sample(3, seed=3, method="greedy") == vae.sample(3, seed=3, method="greedy")
    assert torch.equal(state, torch.get_rng_state())
    assert all(len(text.split()) <= 3 for text in vae.sample(8, seed=0, max_length=3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.encode(["a", " "]), "sentence 2 is empty"),
        (lambda vae: vae.encode([1]), "sentence 1 is not text"),
        (lambda vae: vae.decode(np.zeros((2, 3))), r"must have shape \(N, 4\)"),
        (lambda vae: vae.sample(0), "at least 1"),
        (lambda vae: vae.sample(1, temperature=0), "temperature"),
        (lambda vae: vae.sample(1, top_p=1.5), "top_p"),
        (lambda vae: vae.evaluate(TEXTS[:5], ["nlll"]), "did you mean 'nll'"),
        (lambda vae: vae.evaluate(TEXTS[:5], samples=0), "at least 1"),
        (lambda vae: vae.evaluate("nowhere.txt"), "nowhere.txt"),
        (lambda vae: vae.to("cuda:99"), "is not there"),
        (lambda vae: vae.to("gpu"), "unknown device"),
    ],
)
def test_mistakes_get_one_line(vae: TextVAE, call, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call(vae)
    assert "\n" not in str(caught.value)


def test_an_untrained_model_says_so() -> None:
    with pytest.raises(UserError, match="not trained yet"):
        TextVAE.from_recipe("vae").sample(1)


def test_a_language_model_has_no_vectors_but_writes(tmp_path: Path) -> None:
    vae = TextVAE.from_recipe("lstm-lm", overrides=TINY[2:])
    vae.fit(TEXTS, progress=False)
    assert len(vae.sample(3, seed=0)) == 3
    with pytest.raises(UserError, match="no latent"):
        vae.encode(["play"])
    assert vae.diagnose(TEXTS[:20]).state == "no latent"
    assert vae.evaluate(TEXTS[:20])["kl"].value is None
    vae.save_pretrained(tmp_path / "lm")
    assert TextVAE.from_pretrained(tmp_path / "lm").sample(3, seed=0) == vae.sample(3, seed=0)


def test_saving_and_loading_change_no_answer(vae: TextVAE, tmp_path: Path) -> None:
    vae.save_pretrained(tmp_path / "saved")
    again = TextVAE.from_pretrained(tmp_path / "saved")
    text = ["play some jazz", "will it rain"]
    assert np.array_equal(vae.encode(text), again.encode(text))
    assert vae.sample(4, seed=1) == again.sample(4, seed=1)
    assert vae.reconstruct(text) == again.reconstruct(text)
    assert vae.interpolate(*text) == again.interpolate(*text)
    assert vae.evaluate(TEXTS[:30], samples=20) == again.evaluate(TEXTS[:30], samples=20)
    assert vae.diagnose(TEXTS[:30]) == again.diagnose(TEXTS[:30])
    assert again.recipe == vae.recipe
    with pytest.raises(UserError, match="exists already"):
        vae.save_pretrained(tmp_path / "saved")


def test_resume_equals_never_having_stopped(tmp_path: Path) -> None:
    def fit(folder: str, epochs: int, *, resume: bool = False) -> TextVAE:
        vae = TextVAE.from_recipe("vae", overrides=[*TINY, f"training.max_epochs={epochs}"])
        return vae.fit(
            TEXTS, validation=TEXTS[:60], out=tmp_path / folder, progress=False, resume=resume
        )

    whole = fit("whole", 3)
    fit("parts", 1)
    # a finished run is marked so; what a stop leaves behind is not
    config = json.loads((tmp_path / "parts/config.json").read_text())
    config["finished"] = False
    (tmp_path / "parts/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="has not finished"):
        TextVAE.from_pretrained(tmp_path / "parts")
    parts = fit("parts", 3, resume=True)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, parts.model.state_dict()[name]), name
    with pytest.raises(UserError, match="nothing to resume"):
        fit("parts", 3, resume=True)


def test_a_run_is_resumed_only_as_itself(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"finished": False}))
    vae = TextVAE.from_recipe("bn-vae", latent_dim=5, overrides=TINY)
    with pytest.raises(UserError, match=r"another latents.z.dim"):
        vae.fit(TEXTS, validation=TEXTS[:60], out=folder, resume=True, progress=False)
    vae = TextVAE.from_recipe("bn-vae", latent_dim=4, overrides=TINY)
    other = TextVAE.from_recipe("vae", latent_dim=4, overrides=TINY)
    with pytest.raises(UserError, match=r"is a run of recipe bn-vae, not vae; cannot resume it$"):
        other.fit(TEXTS, validation=TEXTS[:60], out=folder, resume=True, progress=False)
    with pytest.raises(UserError, match="another train_sentences"):
        vae.fit(TEXTS[:200], validation=TEXTS[:60], out=folder, resume=True, progress=False)


def test_bad_data_leaves_no_folder(tmp_path: Path) -> None:
    vae = TextVAE.from_recipe("vae", overrides=TINY)
    for data in ("missing.txt", [], ["", " "]):
        with pytest.raises(UserError):
            vae.fit(data, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(UserError, match="exists already"):
        TextVAE.from_recipe("vae", overrides=TINY).fit(TEXTS, out=run)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_damage_is_named(run: Path, tmp_path: Path) -> None:
    def broken(name: str, change) -> Path:
        folder = shutil.copytree(run, tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}")
        change(folder / name)
        return folder

    def truncate(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-100])

    for name in ("model.safetensors", "tokenizer.json", "recipe.yaml"):
        for change in (truncate, Path.unlink):
            with pytest.raises(RunError, match=name):
                TextVAE.from_pretrained(broken(name, change))
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        TextVAE.from_pretrained(broken("config.json", truncate))
    with pytest.raises(RunError, match=r"history\.jsonl is damaged"):
        TextVAE.from_pretrained(broken("history.jsonl", truncate))
    with pytest.raises(UserError, match=r"no config\.json"):
        TextVAE.from_pretrained(broken("config.json", Path.unlink))


def test_a_newer_format_is_refused(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "newer")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format_version": 2}))
    with pytest.raises(UserError, match="format version 2"):
        TextVAE.from_pretrained(folder)


def test_weights_of_another_recipe_are_refused(run: Path, tmp_path: Path) -> None:
    import hashlib

    folder = shutil.copytree(run, tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    weights.pop("decoder.output.weight")
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    config["files"]["model.safetensors"] = digest
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="does not fit its recipe") as caught:
        TextVAE.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_no_validation_data_holds_sentences_out(tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    file.write_text("\n".join(TEXTS) + "\n")
    lines: list[str] = []
    vae = TextVAE.from_recipe("vae", overrides=[*TINY, "training.max_epochs=1"])
    vae.fit(file, progress=False, say=lines.append)
    assert "15 training sentences held out" in lines[0]
    assert not (tmp_path / "training").exists()


@pytest.mark.parametrize("data", [TEXTS[:40], [{"turns": [{"text": t}]} for t in TEXTS[:40]]])
def test_a_condition_without_contexts_is_told_of_in_training(data: list) -> None:
    vae = TextVAE(parse_recipe({**BASE, "training": {"max_epochs": 1}}))
    lines: list[str] = []
    vae.fit(data, progress=False, say=lines.append)
    assert any("no training sentence has a context for small-dialogue" in line for line in lines)
    lines.clear()
    pairs = [{"context": [text], "response": text} for text in TEXTS[:40]]
    vae = TextVAE(parse_recipe({**BASE, "training": {"max_epochs": 1}}))
    vae.fit(pairs, progress=False, say=lines.append)
    assert not any("has a context" in line for line in lines)
