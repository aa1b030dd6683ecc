"""`clusters`, `predict` and `sample --component` from a shell."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from cli_support import Call, call_program
from helpers import small_recipe

from uncollapse import TextVAE
from uncollapse.data.grammar import write_grammar

SUPERVISED = (
    "latents.z.prior.components=10",
    "objective.supervision=[{column: label, variable: z.component, index: 1}]",
    "training.max_epochs=1",
)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return partial(call_program, capsys)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences, a run of two mixtures of ten components, and one without any."""
    folder = tmp_path_factory.mktemp("data")
    write_grammar(folder / "train.jsonl", 150, 0)
    write_grammar(folder / "test.jsonl", 40, 1)
    train = folder / "train.jsonl"
    TextVAE(small_recipe("gm-vae", SUPERVISED)).fit(train, out=folder / "gm", progress=False)
    plain = small_recipe("vae", ("training.max_epochs=1",))
    TextVAE(plain).fit(train, out=folder / "vae", progress=False)
    return folder


@pytest.fixture
def run(data: Path, tmp_path: Path) -> Path:
    """A run of its own, in which names can be kept."""
    return shutil.copytree(data / "gm", tmp_path / "gm")


def test_clusters_are_reported_and_named(call: Call, data: Path, run: Path, tmp_path: Path) -> None:
    test = ("--data", data / "test.jsonl")
    code, out, err = call("clusters", run, *test, "--index", 1, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["variable"], found["index"], found["sentences"]) == ("z.component", 1, 40)
    largest = found["clusters"][0]
    assert {"code", "size", "words", "typical", "labels", "suggestion"} <= set(largest)
    assert largest["name"] is None
    assert "cluster_homogeneity" in found["agreement"]
    code, out, err = call("clusters", run, *test, "--examples", 1, "--words", 2)
    assert (code, err) == (0, "")
    assert out.startswith("z.component")
    assert not (run / "names.yaml").exists()

    names = tmp_path / "mine.yaml"
    names.write_text(f"z.component: {{{largest['code']}: asks the way}}\n")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    code, out, err = call("clusters", run, *test, "--index", 1, "--names", names)
    assert code == 0
    assert err == f"1 name in {run / 'names.yaml'}\n"
    assert "asks the way" in out
    kept = (run / "names.yaml").read_text()
    assert kept == f"z.component:\n  '*-{largest['code']}': asks the way\n"
    # nothing else has changed
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    after.pop(run / "names.yaml")
    assert after == before

    names.write_text("z.component: {0-0: thanks}\n")
    assert call("clusters", run, *test, "--names", names)[2].startswith("2 names in ")
    assert (run / "names.yaml").read_text() == f"{kept}  0-0: thanks\n"
    _, out, err = call("clusters", run, *test, "--index", 1, "--json")
    assert (json.loads(out)["clusters"][0]["name"], err) == ("asks the way", "")


def test_names_are_kept_only_if_all_goes_well(
    call: Call, data: Path, run: Path, tmp_path: Path
) -> None:
    names = tmp_path / "mine.yaml"
    names.write_text("z.component: {0-0: a, 0-1: a}\n")
    code, out, err = call("clusters", run, "--data", "missing.txt", "--names", names)
    assert (code, out) == (2, "")
    assert "both named 'a'" in err  # before the data is looked at
    names.write_text("z.component: {0-0: a}\n")
    assert call("clusters", run, "--data", "missing.txt", "--names", names)[0] == 2
    assert not (run / "names.yaml").exists()
    (run / "names.yaml").write_text("# mine\nz.component: {0-0: a}\n")
    test = ("--data", data / "test.jsonl")
    assert call("clusters", run, *test, "--names", run / "names.yaml")[0] == 0
    assert (run / "names.yaml").read_text().startswith("# mine")


def test_components_are_written_in_blocks(call: Call, run: Path) -> None:
    (run / "names.yaml").write_text("z.component: {0-1: asks, '*-3': thanks}\n")
    how = ("-n", 2, "--seed", 0, "--max-length", 5)
    code, out, err = call("sample", run, "--component", "asks", "--component", "2-*", *how)
    assert (code, err) == (0, "")
    first, second = out.split("\n\n")
    assert [line.startswith("  ") for line in first.splitlines()] == [False, True, True]
    assert first.splitlines()[0] == "0-1  asks"
    assert second.splitlines()[0] == "2-*"
    chosen = ("--component", "asks", "--component", "2-*", "--component", "asks")
    found = json.loads(call("sample", run, *chosen, *how, "--json")[1])
    assert list(found) == ["asks", "2-*"]
    assert [line.strip() for line in first.splitlines()[1:]] == found["asks"]
    one = json.loads(call("sample", run, "--component", 3, "--index", 1, *how, "--json")[1])
    by_name = json.loads(call("sample", run, "--component", "thanks", *how, "--json")[1])
    assert one["3"] == by_name["thanks"]


def test_predictions_are_a_line_a_sentence(call: Call, data: Path, run: Path) -> None:
    texts = ("play some jazz", "will it rain")
    code, out, err = call("predict", run, *texts)
    assert (code, err, len(out.splitlines())) == (0, "", 2)
    codes = out.splitlines()
    assert all(len(line.split("-")) == 2 for line in codes)
    (run / "names.yaml").write_text(f"z.component: {{{codes[0]}: asks}}\n")
    assert call("predict", run, *texts)[1].splitlines()[0] == f"{codes[0]}\tasks"
    found = json.loads(call("predict", run, *texts, "--json")[1])
    assert found[0] == {"code": codes[0], "name": "asks"}
    alone = call("predict", run, *texts, "--variable", "z.component", "--index", 1)[1]
    assert alone.splitlines() == [line.split("-")[1] for line in codes]

    rows = [json.loads(line) for line in call("predict", run, *texts, "--proba")[1].splitlines()]
    assert [len(row) for row in rows] == [2, 2]
    assert rows == json.loads(call("predict", run, *texts, "--proba", "--json")[1])
    assert sum(rows[0][0]) == pytest.approx(1)

    test = ("--data", data / "test.jsonl", "--variable", "label")
    classes = call("predict", run, *test)[1].splitlines()
    assert len(classes) == 40
    shares = [json.loads(line) for line in call("predict", run, *test, "--proba")[1].splitlines()]
    assert classes == [max(row, key=row.__getitem__) for row in shares]
    assert json.loads(call("predict", run, *test, "--json")[1]) == classes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clusters", "nowhere", "--data", "F"], "nowhere"),
        (["clusters", "RUN"], "--data"),
        (["clusters", "RUN", "--data", "missing.txt"], "missing.txt"),
        (["clusters", "RUN", "--data", "F", "--variable", "z.compnent"], "'z.component'"),
        (["clusters", "RUN", "--data", "F", "--index", "2"], "no 2"),
        (["clusters", "RUN", "--data", "F", "--index", "one"], "--index"),
        (["clusters", "RUN", "--data", "F", "--label-column", "lable"], "'label'"),
        (["clusters", "RUN", "--data", "F", "--lable-column", "label"], "--label-column"),
        (["clusters", "RUN", "--data", "F", "--names", "nowhere.yaml"], "nowhere.yaml"),
        (["clusters", "RUN", "--data", "F", "--names", "F"], "not valid YAML"),
        (["clusters", "RUN", "--data", "F", "--examples", "0"], "examples"),
        (["clusters", "RUN", "--data", "F", "--words", "-1"], "words"),
        (["clusters", "VAE", "--data", "F"], "no discrete variable"),
        (["predict", "RUN"], "--data"),
        (["predict", "RUN", "a", "--data", "F"], "not both"),
        (["predict", "RUN", "a", "--variable", "lable"], "'label'"),
        (["predict", "RUN", "a", "--variable", "label", "--index", "1"], "leave out"),
        (["predict", "RUN", "a", "--index", "9"], "no 9"),
        (["predict", "VAE", "a"], "no discrete variable"),
        (["predict", "VAE", "a", "--proba"], "no discrete variable"),
        (["sample", "RUN", "--component", "aks"], "'aks'"),
        (["sample", "RUN", "--component", "0-10"], "'10'"),
        (["sample", "RUN", "--component", "0-0", "--component", "4"], "one index of 2"),
        (["sample", "RUN", "--component", "4", "--index", "3"], "no 3"),
        (["sample", "RUN", "--component", "4", "--variable", "c"], "unknown variable 'c'"),
        (["sample", "RUN", "--index", "1"], "component"),
        (["sample", "RUN", "--component", "0-0", "-n", "0"], "at least 1"),
        (["sample", "VAE", "--component", "0-0"], "no discrete variable"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(
    call: Call, data: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"F": data / "test.jsonl", "RUN": data / "gm", "VAE": data / "vae"}
    monkeypatch.chdir(data)
    code, out, err = call(*(names.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert message in err
    assert not (data / "gm/names.yaml").exists()
