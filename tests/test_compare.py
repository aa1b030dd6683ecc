"""Comparing recipes: what is computed, what is left alone, what is refused, what survives."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from uncollapse import saving
from uncollapse.benchmark import running as module
from uncollapse.benchmark.compare import IncompleteComparison, compare
from uncollapse.benchmark.measuring import Measurement
from uncollapse.benchmark.plans import make_plans
from uncollapse.benchmark.running import ComparedRun
from uncollapse.benchmark.summary import RunSummary, TestSentences
from uncollapse.cli.app import app
from uncollapse.data.grammar import assistant_grammar, write_grammar
from uncollapse.errors import RunError, UserError
from uncollapse.evaluation.dialogue_figures import DIALOGUE, HEADLINE
from uncollapse.recipes import load_recipe, recipe_to_yaml
from uncollapse.training.signals import Interrupted

SMALL = (
    "encoder.hidden_dim=6",
    "encoder.embedding_dim=6",
    "decoder.hidden_dim=6",
    "decoder.embedding_dim=6",
    "training.max_epochs=2",
    "training.precision=f32",
)


class Bench:
    """Counts what is trained and measured, and fails where a test says so."""

    def __init__(self) -> None:
        self.trained: list[tuple[str, int, bool]] = []
        self.measured: list[str] = []
        self.fault: Callable[[str], Exception | None] = lambda _: None


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Replaces training and measuring; the folders they leave are real ones."""
    bench = Bench()

    def trained(run: ComparedRun, *_: Any) -> str:
        folder, plan = run.folder, run.plan
        if saving.is_finished(folder):
            return plan.name
        bench.trained.append((plan.name, run.seed, (folder / "config.json").is_file()))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.yaml").write_text(recipe_to_yaml(plan.recipe), encoding="utf-8")
        config = {"format_version": 1, "finished": False, "run": {}, "files": {}}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        error = bench.fault(plan.name)
        if error is not None:
            raise error
        config["finished"] = True
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return plan.name

    def measure(
        _vae: str,
        name: str,
        folder: Path,
        *_data: Any,
        sentences: TestSentences,
        wanted: Measurement,
        **_: Any,
    ) -> RunSummary:
        bench.measured.append(name)
        seed = int(folder.name.removeprefix("seed-"))
        nll = {
            "value": 100.0 + seed,
            "unit": "nats/sentence",
            "standard_error": 0.5,
            "estimator": "",
            "samples": wanted.samples,
            "definition": "",
        }
        return RunSummary(
            name, seed, {"nll": nll}, [], {"state": "alive", "evidence": "", "advice": ""},
            np.zeros((0, 0)), sentences.labels, sentences.label_names, [], ["a"], [], [], 1.0, 10,
            {"train": 4, "validation": 1, "test": sentences.total},
        )  # fmt: skip

    monkeypatch.setattr(module, "trained", trained)
    monkeypatch.setattr(module, "measure", measure)
    return bench


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("a b\nb c\nc d\nd e\ne f\n", encoding="utf-8")
    test.write_text("a b\nc d\n", encoding="utf-8")
    return train, test


def test_everything_is_written_and_averaged(
    bench: Bench, files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = compare(["vae", "lstm-lm"], *files, out, seeds=2, samples=7, entropy_floor=90.0)
    assert bench.trained == [(n, s, False) for n in ("vae", "lstm-lm") for s in (0, 1)]
    written = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert written["systems"]["vae"]["nll"]["value"] == 100.5
    assert written["systems"]["vae"]["nll"]["standard_error"] == 0.5
    assert written["data"]["test"] == "test.txt, 2 sentences"
    assert "held out" in written["data"]["validation"]
    assert "100.50 ± 0.50" in found.to_text()
    assert "entropy of the language (exact)" in found.to_markdown()
    assert (out / "comparison.md").read_text(encoding="utf-8") == found.to_markdown()
    assert "<h1>vae and lstm-lm</h1>" in (out / "index.html").read_text(encoding="utf-8")
    assert not list(out.rglob("*.tmp"))


def test_finished_runs_are_left_alone_and_recipes_may_be_added(
    bench: Bench, files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = compare(["vae"], *files, out).to_dict()
    lines: list[str] = []
    again = compare(["vae"], *files, out, say=lines.append).to_dict()
    assert first == again
    assert lines == ["vae, seed 0: finished before"]
    compare(["vae", "bn-vae"], *files, out, seeds=2)
    assert [run[:2] for run in bench.trained] == [
        ("vae", 0), ("vae", 1), ("bn-vae", 0), ("bn-vae", 1),
    ]  # fmt: skip
    (out / "vae" / "seed-0" / "summary.json").unlink()
    compare(["vae"], *files, out)
    assert len(bench.trained) == 4
    assert len(bench.measured) == 5


def test_a_failing_recipe_does_not_stop_the_others(
    bench: Bench, files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    faults = {"vae": RunError("non-finite KL in step 3"), "bn-vae": ValueError("oh\nno")}
    bench.fault = faults.get
    with pytest.raises(IncompleteComparison, match="vae, seed 0: failed: non-finite KL") as caught:
        compare(["vae", "bn-vae", "beta-vae"], *files, out)
    assert caught.value.exit_code == 1
    assert "(and 1 more)" in str(caught.value)
    assert [run.name for run in caught.value.comparison.summaries] == ["beta-vae"]
    text = caught.value.comparison.to_text()
    assert "vae (failed)" in text
    assert "bn-vae, seed 0: failed: ValueError: oh" in text
    assert "ValueError: oh" in (out / "index.html").read_text(encoding="utf-8")

    bench.fault = lambda _: None  # the fault is repaired: what is left is done, nothing else
    compare(["vae", "bn-vae", "beta-vae"], *files, out)
    assert bench.trained[3:] == [("vae", 0, True), ("bn-vae", 0, True)]


def test_a_signal_stops_the_comparison(
    bench: Bench, files: tuple[Path, Path], tmp_path: Path
) -> None:
    bench.fault = lambda _: Interrupted(2)
    with pytest.raises(Interrupted):
        compare(["vae", "bn-vae"], *files, tmp_path / "out")
    assert len(bench.trained) == 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"overrides": ("training.batch_size=8",)}, "another training.batch_size"),
        ({"latent_dim": 3}, "another latents.z.dim"),
        ({"samples": 9}, "other number of samples"),
        ({"metrics": ["standard", "geometry"]}, "other metrics"),
        ({"validation": ["x y"]}, "other validation data"),
        ({"train": ["x y"]}, "other train data"),
        ({"test": ["x y"]}, "other test data"),
    ],
)
def test_other_settings_are_refused_and_nothing_changes(
    bench: Bench,
    files: tuple[Path, Path],
    tmp_path: Path,
    changes: dict[str, Any],
    line: str,
) -> None:
    out = tmp_path / "out"
    settings: dict[str, Any] = {"train": files[0], "test": files[1], "samples": 5}
    compare(["vae"], out=out, **settings)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(UserError, match=line):
        compare(["vae"], out=out, **{**settings, **changes})
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert len(bench.trained) == 1


def test_word_vectors_are_known_by_name_and_size(
    bench: Bench, files: tuple[Path, Path], tmp_path: Path
) -> None:
    path, elsewhere = tmp_path / "vectors.txt", tmp_path / "elsewhere" / "vectors.txt"
    elsewhere.parent.mkdir()
    for place in (path, elsewhere):
        place.write_text("a 1 2\nb 3 4\n", encoding="utf-8")
    out, metrics = tmp_path / "out", ["dialogue"]
    compare(["vae"], *files, out, metrics=metrics, vectors=path)
    compare(["vae"], *files, out, metrics=metrics, vectors=str(elsewhere))
    assert len(bench.trained) == 1
    path.write_text("a 1 2\nb 3 4\nc 5 6\n", encoding="utf-8")
    for vectors in (path, None):
        with pytest.raises(UserError, match="a comparison with other word vectors"):
            compare(["vae"], *files, out, metrics=metrics, vectors=vectors)


def test_bad_requests_leave_no_folder(files: tuple[Path, Path], tmp_path: Path) -> None:
    out, blank = tmp_path / "out", tmp_path / "blank.txt"
    blank.write_text("\n \n", encoding="utf-8")
    torn = tmp_path / "vectors.txt"
    torn.write_text("hello 1 2\nyou 3\n", encoding="utf-8")
    requests: list[tuple[list[str], dict[str, Any], str]] = [
        ([], {}, "no recipe"),
        (["vae", "vae"], {}, "twice"),
        (["vea"], {}, "did you mean"),
        (["vae"], {"seeds": 0}, "at least 1"),
        (["vae"], {"overrides": ["training.epochs=3"]}, "training"),
        (["vae"], {"overrides": ["name=a/b"]}, "name of a folder"),
        (["vae"], {"validation": tmp_path / "absent.txt"}, "does not exist"),
        (["vae"], {"validation": blank}, "blank.txt is empty"),
        (["vae"], {"validation": [" "]}, "the validation data has no sentences"),
        (["vae"], {"metrics": ["geomtry"]}, "did you mean 'geometry'"),
        (["cvae"], {"metrics": ["dialogue"]}, "no response of the test data has a context"),
        (["vae"], {"vectors": "x.txt"}, "of use with the embedding_… figures only"),
        (["vae"], {"metrics": ["dialogue"], "vectors": "x.txt"}, "cannot read the vectors x.txt"),
        (["vae"], {"metrics": ["dialogue"], "vectors": torn}, "line 2: 1 numbers, expected 2"),
    ]
    for recipes, changes, line in requests:
        with pytest.raises(UserError, match=line):
            compare(recipes, *files, out, **changes)
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="is no comparison"):
        compare(["vae"], *files, out)


def test_overrides_of_the_latent_pass_by_a_language_model() -> None:
    plans, sweep = make_plans(["vae", "lstm-lm"], 5, (*SMALL, "latents.z.readout=mean"))
    assert sweep is None
    vae, language_model = (plan.recipe for plan in plans)
    assert vae.latents["z"].dim == 5
    assert vae.latents["z"].readout == "mean"
    assert language_model.latents == {}
    assert language_model.decoder.hidden_dim == 6


def test_of_several_recipes_the_one_that_a_key_does_not_fit_is_named() -> None:
    for names, line in (
        (["cvae", "vae"], r"^vae: a condition needs turns to read"),
        (["vae"], r"^recipe: a condition needs turns to read"),
    ):
        with pytest.raises(UserError, match=line):
            make_plans(names, None, ["condition.hidden_dim=6"])


# --- sweeps -------------------------------------------------------------------------------

BETA = "latents.z.divergence.beta"


def test_a_sweep_trains_every_value_and_goes_on_later(
    bench: Bench, files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = compare(["lstm-lm", "dgm-vae"], *files, out, sweep=f"{BETA}=0, 0.20", seeds=2)
    variants = ["dgm-vae, beta=0", "dgm-vae, beta=0.2"]
    assert found.recipes == ("lstm-lm", *variants)
    assert [run[:2] for run in bench.trained] == [(n, s) for n in found.recipes for s in (0, 1)]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "dgm-vae,beta=0", "dgm-vae,beta=0.2", "lstm-lm",
    ]  # fmt: skip
    recipe = load_recipe(out / "dgm-vae,beta=0.2" / "seed-1" / "recipe.yaml")
    assert recipe == load_recipe("dgm-vae", [f"{BETA}=0.2"])
    written = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    systems = dict(zip(("0", "0.2"), variants, strict=True))
    assert written["sweep"] == {"key": BETA, "systems": {"dgm-vae": systems}}
    assert list(written["systems"]) == ["lstm-lm", *variants]
    summary = RunSummary.load(out / "dgm-vae,beta=0.2" / "seed-1")
    assert summary is not None
    assert summary.name == variants[1]

    # another value, and one that is there already, written differently
    bench.trained.clear()
    more = compare(["dgm-vae"], *files, out, sweep=f"{BETA}=2e-1,1", seeds=2)
    assert [run[:2] for run in bench.trained] == [("dgm-vae, beta=1", s) for s in (0, 1)]
    assert more.recipes == ("dgm-vae, beta=0.2", "dgm-vae, beta=1")
    # without a sweep, the recipe is a system of its own
    compare(["dgm-vae"], *files, out)
    assert bench.trained[-1] == ("dgm-vae", 0, False)


def test_a_failing_value_does_not_stop_the_others(
    bench: Bench, files: tuple[Path, Path], tmp_path: Path
) -> None:
    bench.fault = {"dgm-vae, beta=0": RunError("non-finite KL")}.get
    with pytest.raises(IncompleteComparison, match="dgm-vae, beta=0, seed 0: failed") as caught:
        compare(["dgm-vae"], *files, tmp_path / "out", sweep=f"{BETA}=0,1")
    assert [run.name for run in caught.value.comparison.summaries] == ["dgm-vae, beta=1"]


@pytest.mark.parametrize(
    ("recipes", "sweep", "line"),
    [
        (["dgm-vae"], BETA, "write section.key=value,value"),
        (["dgm-vae"], f"{BETA}=", "lacks a value"),
        (["dgm-vae"], f"{BETA}=0,,1", "lacks a value"),
        (["dgm-vae"], f"{BETA}=0,0", "the value 0 twice"),
        (["dgm-vae"], f"{BETA}=0,0.0", "0 and 0.0 make the same recipe"),
        (["dgm-vae"], f"{BETA}=0,2", "latents.z.divergence.beta: .*less than or equal to 1, not 2"),
        (["dgm-vae"], f"{BETA}=0,[", "not valid YAML"),
        (["vae", "dgm-vae"], "latents.z.divergence.bta=0", f"did you mean '{BETA}'"),
        (["lstm-lm", "dgm-vae"], "latent.z.divergence.beta=0", f"did you mean '{BETA}'"),
        (["dgm-vae"], "latents.y.divergence.beta=0", "unknown latent 'y'"),
        (["vae"], f"{BETA}=0", "it belongs to kind dispersed, not kl"),
        (["lstm-lm"], f"{BETA}=0", "a language model has no latents.z.divergence.beta"),
        (["lstm-lm"], "encoder.kind=lstm", "a language model has no encoder.kind"),
        (["vae"], "training.plateau.patence=3", "did you mean 'training.plateau.patience'"),
        (["dgm-vae"], f"summary={'a' * 300},b", "too long for the name of a folder"),
    ],
)  # fmt: skip
def test_bad_sweeps_are_refused_before_anything_is_trained(
    files: tuple[Path, Path], tmp_path: Path, recipes: list[str], sweep: str, line: str
) -> None:
    with pytest.raises(UserError, match=line) as caught:
        compare(recipes, *files, tmp_path / "out", sweep=sweep)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_one_size_for_all_leaves_nothing_to_sweep(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 and 4 make the same recipe"):
        compare(["vae"], *files, tmp_path / "out", sweep="latents.z.dim=3,4", latent_dim=5)


def test_supervision_needs_its_labels(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="emotion"):
        compare(["cm-vae"], *files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_takes_one_sweep(files: tuple[Path, Path]) -> None:
    train, test = map(str, files)
    command = ["compare", "vae", "--train", train, "--test", test, "--out", f"{train}-out"]
    done = CliRunner().invoke(app, [*command, "--sweep", "a=1", "--sweep", "b=2"])
    assert isinstance(done.exception, UserError)
    assert "one --sweep" in str(done.exception)


@pytest.mark.slow
def test_a_real_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    write_grammar(train, 80, seed=1)
    write_grammar(test, 20, seed=2)
    out = tmp_path / "out"
    small = (*SMALL, "latents.z.groups=2", "latents.z.dim=2", "objective.samples=1")
    found = compare(
        ["dgm-vae"],
        train,
        test,
        out,
        overrides=(*small, "training.max_epochs=1"),
        sweep=f"{BETA}=0,0.8",
        metrics=["standard", "clusters"],
        label_column="label",
        samples=5,
        device="cpu",
        progress=False,
    )
    assert [column.heading for column in found.tables["mixtures"].columns] == [
        "KL(c)", "KL(z) avg.", "KL(z) mix.", "L_d", "Var", "L_mi", "L_mi / var.",
    ]  # fmt: skip
    assert "clusters" in found.tables
    assert found.tradeoff is not None
    assert "BLEU" in (out / "sweep.svg").read_text(encoding="utf-8")
    assert "The trade-off over beta" in (out / "index.html").read_text(encoding="utf-8")
    assert (out / "dgm-vae,beta=0.8" / "seed-0" / "model.safetensors").is_file()


def small_talk(count: int, seed: int) -> str:
    """Dialogues whose turns are questions or not, a line each."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        texts = draw.choices(["hello there", "how are you ?", "fine thanks", "and you ?"], k=4)
        acts = ["question" if text.endswith("?") else "statement" for text in texts]
        pairs = enumerate(zip(texts, acts, strict=True))
        turns = [{"speaker": "AB"[i % 2], "text": text, "act": act} for i, (text, act) in pairs]
        lines.append(json.dumps({"turns": turns}))
    return "\n".join(lines)


@pytest.mark.slow
def test_real_runs_on_dialogues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text(small_talk(30, 0), encoding="utf-8")
    test.write_text(small_talk(10, 1), encoding="utf-8")
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("hello 1 0\nfine 0 1\nyou 1 1\n", encoding="utf-8")
    recipes = []
    for name in ("hred", "cvae", "vae"):  # the last is told of no context
        small = ["decoder.hidden_dim=6", "decoder.embedding_dim=6", "training.max_epochs=1"]
        if name != "vae":
            small += ["condition.hidden_dim=6", "training.batch_size=16"]
        where = "condition.encoder" if name == "hred" else "encoder"
        small += [f"{where}.hidden_dim=6", f"{where}.embedding_dim=6"]
        recipes.append(tmp_path / f"{name}.yaml")
        text = recipe_to_yaml(load_recipe(name, small))
        recipes[-1].write_text(text, encoding="utf-8")
    found = compare(
        recipes,
        train,
        test,
        tmp_path / "out",
        metrics=["standard", "dialogue"],
        label_column="act",
        samples=5,
        generated=100,
        vectors=vectors,
        device="cpu",
        progress=False,
    )
    runs = {run.name: run for run in found.summaries}
    for name in ("hred", "cvae"):
        turns, real, answers = runs[name].responses[0]
        assert turns
        assert real
        assert len(answers) == 3
    assert not runs["vae"].responses
    assert "In context" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    table = found.tables["dialogue"]
    assert tuple(column.name for column in table.columns) == HEADLINE
    headings = [column.heading for column in table.columns]
    assert headings[:3] == ["BLEU-4 precision", "BLEU-4 recall", "BLEU F1 (WAE)"]
    assert "distinct-2 inter" in headings
    cells = {row.system: [cell.value for cell in row.cells] for row in table.rows}
    assert set(cells["vae"]) == {None}
    assert None not in cells["cvae"]
    assert None not in cells["hred"]
    written = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert set(DIALOGUE) < set(written["systems"]["cvae"])
    assert "more figures are in comparison.json" in found.to_text()
    assert "more figures are in comparison.json" in found.to_markdown()
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Responses, held against real ones" in page
    assert "vectors: vectors.txt" in page
    # the picture is of responses in their contexts, as the figures are
    (run,) = (summary for summary in found.summaries if summary.name == "cvae")
    assert run.means.shape[0] == 40
    assert sum(run.kl_per_dimension) == pytest.approx(run.value("kl"), rel=1e-3)


@pytest.mark.slow
def test_real_runs_on_the_grammar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are too small to share out
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    write_grammar(train, 120, seed=1)
    write_grammar(test, 30, seed=2)
    floor = assistant_grammar().entropy()

    def run() -> dict[str, Any]:
        return compare(
            ["bn-vae", "autoencoder", "lstm-lm"],
            train,
            test,
            tmp_path / "out",
            latent_dim=4,
            overrides=SMALL,
            samples=5,
            entropy_floor=floor,
            device="cpu",
            progress=False,
        ).to_dict()

    found = run()
    systems = found["systems"]
    assert systems["bn-vae"]["nll"]["value"] > floor
    assert systems["autoencoder"]["nll"]["value"] is None
    assert systems["lstm-lm"]["kl"]["value"] is None
    assert found["data"]["train"] == "train.jsonl, 114 sentences"
    summary = RunSummary.load(tmp_path / "out" / "bn-vae" / "seed-0")
    assert summary is not None
    assert summary.means.shape == (30, 4)
    assert summary.label_names
    assert len(summary.kl_per_dimension) == 4
    assert [len(steps) for steps in summary.interpolations] == [7, 7]
    assert "Latent space" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert run() == found
