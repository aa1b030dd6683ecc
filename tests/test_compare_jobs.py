"""A comparison in several processes: the same results, faults kept apart, and what is refused."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_support import Call, call_program

from uncollapse.benchmark.compare import IncompleteComparison, compare
from uncollapse.benchmark.measuring import Measurement
from uncollapse.benchmark.plans import make_plans
from uncollapse.benchmark.request import check_portable
from uncollapse.benchmark.running import ComparedRun
from uncollapse.benchmark.summary import SUMMARY, TestSentences
from uncollapse.config import Recipe
from uncollapse.data.grammar import assistant_grammar
from uncollapse.errors import RunError, UserError
from uncollapse.recipes import load_recipe

SMALL = (
    "encoder.hidden_dim=6",
    "encoder.embedding_dim=6",
    "decoder.hidden_dim=6",
    "decoder.embedding_dim=6",
    "training.max_epochs=2",
    "training.precision=f32",
)
WEIGHTS = "seed-0/model.safetensors"


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data(tmp_path: Path) -> tuple[list[str], Path]:
    """Training sentences in memory, test sentences in a file."""
    texts = [sample.text for sample in assistant_grammar().sample(100, seed=1)]
    test = tmp_path / "test.txt"
    test.write_text("".join(f"{text}\n" for text in texts[80:]), encoding="utf-8")
    return texts[:80], test


def without_times(values: Any) -> Any:
    """Results without what the clock says of them."""
    if isinstance(values, dict):
        kept = {key: value for key, value in values.items() if "seconds" not in key}
        return {key: without_times(value) for key, value in kept.items()}
    return [without_times(value) for value in values] if isinstance(values, list) else values


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same(
    data: tuple[list[str], Path], tmp_path: Path
) -> None:
    ask = partial(
        compare, ["vae", "lstm-lm", "bn-vae"], *data, overrides=SMALL, samples=5, device="cpu"
    )
    one = ask(out=tmp_path / "one", progress=False)
    out, said = tmp_path / "several", []
    compare(["vae"], *data, out, overrides=SMALL, samples=5, device="cpu", progress=False)
    broken = out / "bn-vae" / "seed-0" / "config.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    with pytest.raises(
        IncompleteComparison, match=r"bn-vae, seed 0: failed: .*is damaged"
    ) as error:
        ask(out=out, jobs=2, say=said.append)
    log = out / "logs" / "bn-vae" / "seed-0.log"
    (failure,) = error.value.comparison.failures
    assert failure.message.endswith(f"; see {log}")
    assert log.is_file()
    assert said[:2] == ["1 of 3 runs were finished before", "2 runs to do, 2 at a time"]
    assert {line.partition(" ")[0] for line in said[2:]} == {"[1/2]", "[2/2]"}
    assert sum(f"bn-vae, seed 0: failed: {failure.message}" in line for line in said) == 1
    assert sum("lstm-lm, seed 0: NLL " in line for line in said) == 1
    assert [run.name for run in error.value.comparison.summaries] == ["vae", "lstm-lm"]

    broken.unlink()  # the fault is repaired: what is left is done, here by submitit
    said.clear()
    several = ask(
        out=out, jobs=2, cluster="local", cluster_options={"timeout_min": 5}, say=said.append
    )
    assert said[:2] == [
        "2 of 3 runs were finished before", f"1 run handed to local; logs in {out / 'cluster'}"
    ]  # fmt: skip
    assert said[2].startswith("[1/1] bn-vae, seed 0: NLL ")
    assert without_times(several.to_dict()) == without_times(one.to_dict())
    for name in ("vae", "lstm-lm", "bn-vae"):
        ours, theirs = (folder / name / WEIGHTS for folder in (out, tmp_path / "one"))
        assert ours.read_bytes() == theirs.read_bytes(), name


def test_a_run_that_died_before_its_first_batch_begins_anew(
    data: tuple[list[str], Path], tmp_path: Path
) -> None:
    (plan,), _ = make_plans(["vae"], None, SMALL)
    sentences = TestSentences.read(data[1], "text", None)
    folder = tmp_path / "vae" / "seed-0"
    wanted = Measurement(("standard",), 5)
    run = ComparedRun(plan, 0, folder, data[0], None, data[1], sentences, wanted, "cpu")
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text("{}")
    said: list[str] = []
    summary = run.do(say=said.append)
    assert said == ["vae, seed 0: training", "vae, seed 0: measuring"]
    assert run.finished() is not None
    assert run.do(say=said.append).metrics == summary.metrics
    assert said[2:] == ["vae, seed 0: finished before"]
    # one that is damaged is nothing finished, and it is told when the run is done
    (folder / SUMMARY).write_text("{")
    assert run.finished() is None
    with pytest.raises(RunError, match="remove it, and the run is measured again"):
        run.do()


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"jobs": 0}, "the number of jobs must be at least 1, not 0"),
        ({"jobs": -2}, "the number of jobs must be at least 1, not -2"),
        ({"cluster": "slrum"}, "unknown cluster 'slrum'; did you mean 'slurm'?"),
        ({"cluster": "slurm"}, "no slurm here: "),
        ({"cluster": "local", "cluster_options": {"partiton": "x"}}, "'partiton'"),
        ({"cluster_options": {"timeout_min": 3}}, "options of a cluster need --cluster"),
        ({"jobs": 2, "device": "cuda:99"}, "cuda:99"),
    ],
)
def test_a_wrong_request_is_one_line_and_nothing_is_written(
    data: tuple[list[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setenv("PATH", "")  # no srun
    with pytest.raises(UserError) as error:
        compare(["vae"], *data, tmp_path / "out", **asked)
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_submitit_is_needed(
    data: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"needs submitit; install it with: pip install"):
        compare(["vae"], *data, tmp_path / "out", cluster="local")
    assert not (tmp_path / "out").exists()


def test_a_piece_of_the_running_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("bn-vae")
    check_portable(recipe)
    posterior = recipe.latents["z"].posterior
    monkeypatch.setattr(type(posterior), "__module__", "__main__")
    with pytest.raises(UserError, match="bn-vae: gaussian is a piece of the running script"):
        check_portable(Recipe.model_validate(recipe.model_dump()))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jobs", "0"], "uncollapse: the number of jobs must be at least 1, not 0\n"),
        (["--jobs", "many"], "uncollapse: Invalid value for '--jobs'"),
        (["--cluster", "pbs"], "uncollapse: unknown cluster 'pbs'"),
        (["--cluster-option", "x"], "uncollapse: cannot read --cluster-option 'x'"),
    ],
)
def test_the_command_says_it_in_one_line(
    data: tuple[list[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    call: Call = partial(call_program, capsys)
    test = ("--train", data[1], "--test", data[1], "--out", tmp_path / "out")
    code, out, err = call("compare", "vae", *test, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
