"""All figures by name, from Python and from a shell, on a model that was trained for it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from uncollapse import TextVAE, cli
from uncollapse.data.grammar import write_grammar
from uncollapse.errors import UserError
from uncollapse.evaluation.suite import PROBES

SMALL = (
    "encoder.embedding_dim=8", "encoder.hidden_dim=12", "decoder.embedding_dim=8",
    "decoder.hidden_dim=12", "training.max_epochs=1", "training.plateau=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training and test sentences with labels, and a run in ``run``."""
    where = tmp_path_factory.mktemp("suite")
    write_grammar(where / "train.jsonl", 400, 0)
    write_grammar(where / "test.jsonl", 60, 1)
    vae = TextVAE.from_recipe("bn-vae", latent_dim=4, overrides=SMALL)
    vae.fit(where / "train.jsonl", out=where / "run", progress=False)
    return where


@pytest.fixture(scope="module")
def vae(folder: Path) -> TextVAE:
    return TextVAE.from_pretrained(folder / "run")


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["uncollapse", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


@pytest.mark.slow
def test_every_group_gives_all_its_figures(folder: Path, vae: TextVAE) -> None:
    found = vae.evaluate(
        folder / "test.jsonl",
        ["standard", *PROBES],
        train=folder / "train.jsonl",
        label_column="label",
        samples=5,
        generated=60,
    )
    for members in PROBES.values():
        assert set(members) <= found.keys()
    for name, metric in found.items():
        assert metric.definition, name
        assert metric.unit, name
        assert metric.estimator, name
        if metric.value is None:  # and then it says why
            assert metric.estimator.startswith("none: "), name
        else:
            assert math.isfinite(metric.value), name
            assert metric.samples > 0, name
    missing = {name for name, metric in found.items() if metric.value is None}
    # 400 sentences have no 500 labels, a latent of 4 dimensions no lagging picture, a
    # Gaussian one no clusters, and a model that is told of no context no responses
    assert missing == {
        "accuracy_500", "accuracy_1k", "accuracy_2k", "accuracy_10k", "posterior_gap",
        *PROBES["clusters"], *PROBES["dialogue"],
    }  # fmt: skip


def test_a_figure_is_the_same_alone(folder: Path, vae: TextVAE) -> None:
    both = {"train": folder / "train.jsonl", "label_column": "label", "samples": 5}
    names = ["kl", "accuracy_100", "v_measure", "cosine"]
    together = vae.evaluate(folder / "test.jsonl", names, **both)
    assert list(together) == ["kl", "accuracy_100", "v_measure", "cosine"]
    for name in names:
        alone = vae.evaluate(folder / "test.jsonl", [name], **both)
        assert alone[name].value == together[name].value


@pytest.mark.parametrize(
    ("metrics", "more", "message"),
    [
        (["klx"], {}, "unknown metric 'klx'; did you mean 'kl'"),
        (["geomtry"], {}, "did you mean 'geometry'"),
        (["reverse_ppl"], {}, "reverse_ppl needs training sentences; give them with --train"),
        (["dialogue"], {}, "bleu_1_precision needs training sentences; give them with --train"),
        (["kl"], {"vectors": "x.txt"}, "of use with the embedding_… figures only"),
        (["dialogue"], {"vectors": "x.txt"}, "cannot read the vectors x.txt"),
        (["accuracy_100"], {"train": "train.jsonl"}, "--label-column"),
        (
            ["accuracy_500"],
            {"train": "train.jsonl", "label_column": "label"},
            "needs 500 labelled sentences; the training data has 400",
        ),
        (["v_measure"], {"train": "train.jsonl", "label_column": "lable"}, "lable"),
    ],
)
def test_what_is_missing_is_named(
    folder: Path, vae: TextVAE, metrics: list[str], more: dict[str, str], message: str
) -> None:
    if "train" in more:
        more = more | {"train": str(folder / "train.jsonl")}
    with pytest.raises(UserError) as caught:
        vae.evaluate(folder / "test.jsonl", metrics, **more)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shell_prints_chosen_figures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        "evaluate", str(folder / "run"), "--data", str(folder / "test.jsonl"), "--json",
        "--metrics", "kl, v_measure,aggregate_kl", "--train", str(folder / "train.jsonl"),
        "--label-column", "label", capsys=capsys,
    )  # fmt: skip
    assert code == 0
    assert list(json.loads(out)) == ["kl", "v_measure", "aggregate_kl"]


@pytest.mark.parametrize("what", ["training", "kl-per-dimension", "aggregate-posterior"])
def test_shell_draws(
    folder: Path, tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "figure.svg"
    given = ["plot", str(folder / "run"), "--what", what, "--out", str(target)]
    code, out, _ = run(*given, "--data", str(folder / "test.jsonl"), capsys=capsys)
    assert (code, out.strip()) == (0, str(target))
    assert "<svg" in target.read_text(encoding="utf-8")
    code, _, err = run(*given, capsys=capsys)
    assert code == 2
    assert err.count("\n") == 1
    assert "exists already" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((2, "lagin"), "did you mean 'lagging'"),
        ((4, "figure.gif"), "must end in .svg"),
        ((4, "nowhere/figure.svg"), "no folder"),
        ((2, "lagging"), "needs sentences: give them with --data"),
    ],
)
def test_shell_refuses_to_draw(
    folder: Path, tmp_path: Path, change: tuple[int, str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [str(folder / "run"), "--what", "training", "--out", str(tmp_path / "figure.svg")]
    place, value = change
    given[place] = str(tmp_path / value) if place == 4 else value
    code, out, err = run("plot", *given, capsys=capsys)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
