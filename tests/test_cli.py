"""The verbs from a shell: what goes to stdout, what to stderr, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cli_support import Call, call_program

SMALL = [
    *("--set", "encoder.embedding_dim=16", "--set", "encoder.hidden_dim=24"),
    *("--set", "decoder.embedding_dim=16", "--set", "decoder.hidden_dim=24"),
    *("--set", "training.max_epochs=1", "--set", "latents.z.dim=4"),
]
COMPARE = ["compare", "vae", "--train", "F", "--test", "F", "--out", "O"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the program in this process; gives exit code, stdout and stderr."""
    return partial(call_program, capsys)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from uncollapse.data.grammar import write_grammar

    folder = tmp_path_factory.mktemp("data")
    for seed, (name, size) in enumerate({"train": 300, "valid": 60, "test": 60}.items()):
        write_grammar(folder / f"{name}.jsonl", size, seed)
    return folder


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    from uncollapse import TextVAE

    out = data / "run"
    overrides = SMALL[1::2]  # without the flags
    vae = TextVAE.from_recipe("vae", overrides=overrides)
    vae.fit(data / "train.jsonl", validation=data / "valid.jsonl", out=out, progress=False)
    return out


def test_recipes(call: Call) -> None:
    code, out, _ = call("recipes")
    assert code == 0
    assert any(line.startswith("bn-vae ") for line in out.splitlines())
    code, out, _ = call("recipes", "--json")
    assert {"name", "summary", "source"} <= set(json.loads(out)[0])
    code, out, _ = call("recipes", "bn-vae")
    assert "batch_norm" in out


def test_training_and_every_verb(call: Call, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    training = ("--train", data / "train.jsonl", "--validation", data / "valid.jsonl")
    code, out, err = call("train", "bn-vae", *training, "--out", run, *SMALL)
    assert (code, out) == (0, f"{run}\n")
    assert "300 sentences" in err
    test = ("--data", data / "test.jsonl")
    code, out, err = call("evaluate", run, *test, "--samples", 10, "--json")
    assert (code, err) == (0, "")
    names = ["reconstruction", "kl", "elbo", "nll", "ppl", "mi", "active_units", "bleu"]
    found = json.loads(out)
    assert list(found)[:8] == names
    for metric in found.values():
        assert {"value", "unit", "standard_error", "estimator", "samples"} <= set(metric)
    assert set(json.loads(call("evaluate", run, *test, "--metrics", "kl,mi", "--json")[1])) == {
        "kl",
        "mi",
    }
    assert "nll" in call("evaluate", run, *test, "--samples", 10)[1]
    # after one epoch it is hardly more than the one or less than the other
    assert json.loads(call("diagnose", run, *test, "--json")[1])["state"] in ("alive", "dying")
    assert "verdict" in call("diagnose", run, *test)[1]
    assert len(call("sample", run, "-n", 3, "--seed", 0)[1].splitlines()) == 3
    sampled = call("sample", run, "-n", 3, "--seed", 0, "--greedy", "--json")[1]
    assert len(json.loads(sampled)) == 3
    assert len(call("reconstruct", run, "play some jazz", "will it rain")[1].splitlines()) == 2
    assert len(call("interpolate", run, "play jazz", "will it rain", "--steps", 4)[1]) > 0
    assert len(json.loads(call("encode", run, "play some jazz")[1])) == 4
    vectors = tmp_path / "z.npy"
    assert call("encode", run, *test, "--out", vectors)[0] == 0
    assert np.load(vectors).shape == (60, 4)
    assert call("encode", run, *test, "--out", vectors)[0] == 2


def test_stdin_is_data(call: Call, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert call("reconstruct", run, "--data", "-")[0] == 2
    read, write = os.pipe()
    os.write(write, b"play some jazz\n\nwill it rain\n")
    os.close(write)
    with os.fdopen(read) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        code, out, _ = call("reconstruct", run, "--data", "-")
    assert (code, len(out.splitlines())) == (0, 2)
    read, write = os.pipe()
    os.write(write, b"play some jazz\nwill it \xff\n")
    os.close(write)
    with os.fdopen(read) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        code, out, err = call("reconstruct", run, "--data", "-")
    assert (code, out, err) == (2, "", "uncollapse: standard input, line 2: not valid UTF-8\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "vae"], "'train'"),
        (["train", "vea", "--train", "F", "--out", "O"], "did you mean 'vae'"),
        (["train", "vae", "--train", "trian.jsonl", "--out", "O"], "trian.jsonl"),
        (["train", "vae", "--trian", "F", "--out", "O"], "--train"),
        (["train", "vae", "--train", "F"], "--out"),
        (["train", "vae", "--train", "F", "--out", "O", "--set", "encodr.kind=gru"], "'encoder'"),
        (["train", "vae", "--train", "F", "--out", "O", "--set", "encoder.kind=gur"], "'gru'"),
        (["train", "vae", "--train", "F", "--out", "O", "--set", "training.batch_size=-3"], "-3"),
        (["train", "vae", "--train", "F", "--out", "O", "--set", "nonsense"], "section.key=value"),
        (["train", "vae", "--train", "F", "--out", "RUN"], "exists already"),
        (["train", "vae", "--train", "F", "--out", "O", "--resume"], "does not exist"),
        (["train", "vae", "--train", "F", "--out", "RUN", "--resume"], "nothing to resume"),
        (["train", "vae", "--train", "F", "--out", "O", "--device", "gpu"], "unknown device"),
        (["train", "vae", "--train", "F", "--out", "O", "--seed", "x"], "--seed"),
        (["train", "vae", "--train", "F", "--out", "O", "--set", "data.text_column=txt"], "text"),
        (["train", "vae", "--train", "F", "--out", "O", "--seed", "-1"], "seed"),
        (["train", "vae", "--train", "F", "--out", "O", "--seed", str(10**20)], "seed"),
        (["recipes", "bn"], "unknown recipe"),
        (["evaluate", "nowhere", "--data", "F"], "nowhere"),
        (["evaluate", "RUN", "--data", "missing.txt"], "missing.txt"),
        (["evaluate", "RUN", "--data", "F", "--metrics", "nlll"], "'nll'"),
        (["evaluate", "RUN", "--data", "F", "--samples", "0"], "samples"),
        (["evaluate", "RUN", "--data", "F", "--seed", "-1"], "seed"),
        (["evaluate", "RUN", "--data", "F", "--precision", "bf61"], "did you mean 'bf16'"),
        (["evaluate", "RUN", "--data", "F", "--batch-size", "0"], "batch"),
        (["evaluate", "F", "--data", "F"], "is a file, not a run folder"),
        (["evaluate", "RUN1", "--data", "F"], "did you mean"),
        (["evaluate", "RUN", "--data", "F", "--metrics", ""], "lacks a name"),
        (["evaluate", "RUN", "--data", "F", "--metrics", "kl,"], "lacks a name"),
        (["evaluate", "RUN", "--data", "F", "--metrics", "KL"], "did you mean 'kl'"),
        (["evaluate", "RUN", "--data", "F", "--generated", "1"], "generated"),
        (["diagnose", "RUN", "--data", "EMPTY"], "empty"),
        (["diagnose", "RUN", "--data", "ONE"], "at least two sentences"),
        (["sample", "RUN", "--seed", "-1"], "seed"),
        (["sample", "RUN", "--seed", str(10**20)], "seed"),
        (["encode", "RUN", "a", "--out", "nowhere/z.npy"], "no folder nowhere"),
        (["sample", "RUN", "-n", "0"], "at least 1"),
        (["sample", "RUN", "--temperature", "0"], "temperature"),
        (["sample", "RUN", "--top-p", "2"], "top_p"),
        (["reconstruct", "RUN"], "--data"),
        (["reconstruct", "RUN", "a", "--data", "F"], "not both"),
        (["encode", "RUN", "a", "--out", "z.txt"], ".npy"),
        (["interpolate", "RUN", "a", "b", "--steps", "1"], "steps"),
        (["compare", "vae", "vea", "--train", "F", "--test", "F", "--out", "O"], "'vae'"),
        (["compare", "vae", "--train", "F", "--test", "nope.txt", "--out", "O"], "nope.txt"),
        (["compare", "vae", "--train", "F", "--test", "F", "--out", "O", "--seeds", "0"], "seeds"),
        ([*COMPARE, "--metrics", "klx"], "did you mean 'kl'"),
        ([*COMPARE, "--metrics", "kl,"], "lacks a name"),
        ([*COMPARE, "--metrics", "nll_ivae"], "nll_ivae"),
        ([*COMPARE, "--metrics", "supervised"], "--label-column"),
        ([*COMPARE, "--metrics", "representation", "--label-column", "lable"], "'label'"),
        ([*COMPARE, "--samples", "0"], "samples"),
        ([*COMPARE, "--generated", "1"], "generated"),
        ([*COMPARE, "--device", "gpu"], "unknown device"),
        ([*COMPARE, "--entropy-floor", "nan"], "entropy floor"),
        (["data", "check", "F", "--max-length", "0"], "max_length"),
        (["data", "check", "missing.txt"], "missing.txt"),
        (["data", "check", "F", "--text-column", "txt"], "'text'"),
        (["data", "check", "F", "--tokenizer", "word"], "words"),
        (["data", "grammar", "--out", "F"], "exists"),
        (["data", "grammar", "--out", "x.jsonl", "--n", "0"], "0"),
        (["data", "grammar", "--out", "x.doc"], ".jsonl"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(
    call: Call,
    data: Path,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "one.txt").write_text("play some jazz\n")
    names = {"F": data / "train.jsonl", "RUN": run, "RUN1": f"{run}1"}
    names |= {"EMPTY": tmp_path / "empty.txt", "ONE": tmp_path / "one.txt"}
    names["O"] = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*(names.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert message in err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x.jsonl").exists()


def test_a_model_that_cannot_be_built_leaves_no_folder(
    call: Call, data: Path, tmp_path: Path
) -> None:
    arguments = ("train", "vae", "--train", data / "train.jsonl", "--out", tmp_path / "out")
    code, out, err = call(*arguments, "--set", "latents.pop.dim=2")
    assert (code, out) == (2, "")
    assert "'pop'" in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_model_is_a_failure(call: Call, run: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(run, tmp_path / "run")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    code, out, err = call("sample", folder)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "model.safetensors" in err


def test_nothing_heavy_is_imported_for_help() -> None:
    script = (
        "import sys; sys.argv = ['uncollapse', '--help']\n"
        "from uncollapse import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'datasets', 'sklearn', 'matplotlib', 'numpy', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "compare" in done.stdout


def test_a_closed_pipe_is_no_error(run: Path) -> None:
    command = f"{sys.executable} -m uncollapse sample {run} -n 2000 --seed 0 | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_dry_run_prints_the_resolved_recipe_and_writes_nothing(call: Call, tmp_path: Path) -> None:
    code, out, _ = call(
        *("train", "bn-vae", "--train", "any.txt", "--out", tmp_path / "o", "--dry-run"),
        *("--set", "latents.z.dim=7"),
    )
    assert code == 0
    assert "dim: 7" in out
    assert not (tmp_path / "o").exists()
