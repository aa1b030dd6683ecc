"""Figures, tables and the page: what they must show, and what they must never let through."""

from __future__ import annotations

import re
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uncollapse.benchmark.summary import RunSummary, TestSentences
from uncollapse.errors import RunError, UserError
from uncollapse.plots import (
    LatentPanel,
    collapse_pair,
    common_limit,
    latent_space,
    save_figure,
    to_svg,
    training_curves,
)
from uncollapse.plots.latent_space import project
from uncollapse.report.comparison import Comparison, Failure
from uncollapse.report.page import comparison_page
from uncollapse.report.sweep import Sweep
from uncollapse.report.table import DASH, build_table

VOID = {"meta", "link", "br", "img", "hr", "input"}
EVIL = "<script>alert('boo')</script> & \"quotes\""


def metric(value: float | None, error: float | None = 0.4, unit: str = "nats") -> dict[str, Any]:
    return {
        "value": value,
        "unit": unit,
        "standard_error": error,
        "estimator": "counted",
        "samples": 10,
        "definition": "what it is; </s> counts",
    }


def summary(name: str, seed: int = 0, scale: float = 1.0, **changes: Any) -> RunSummary:
    means = np.random.default_rng(seed).normal(size=(40, 5)) * scale
    rows = [
        {"epoch": e, "seconds": 1.0, "validation/kl": scale * e, "validation/mi/z": 0.1 * e}
        for e in (1, 2, 3)
    ]
    values: dict[str, Any] = {
        "name": name,
        "seed": seed,
        "metrics": {"nll": metric(100.0 + seed), "kl": metric(scale), "active_units": metric(3.0)},
        "history": rows,
        "verdict": {"state": "alive", "evidence": "KL 1", "advice": ""},
        "means": means,
        "labels": [n % 2 for n in range(40)],
        "label_names": ["left", EVIL],
        "kl_per_dimension": [0.2] * 5,
        "samples": [EVIL, ""],
        "interpolations": [["one", EVIL, "three"]],
        "reconstructions": [(EVIL, "something")],
        "seconds": 3.0,
        "parameters": 1234,
        "sentences": {"train": 95, "validation": 5, "test": 40},
    }
    return RunSummary(**{**values, **changes})


def language_model() -> RunSummary:
    return summary(
        "lstm-lm",
        means=np.zeros((0, 0)),
        metrics={"nll": metric(99.0), "kl": metric(None, None)},
        kl_per_dimension=[],
        interpolations=[],
        reconstructions=[],
    )


def comparison(*runs: RunSummary, **changes: Any) -> Comparison:
    values: dict[str, Any] = {
        "recipes": tuple(dict.fromkeys(run.name for run in runs)),
        "data": {"train": "train.txt", "test": EVIL},
        "seeds": 1,
        "samples": 10,
        "overrides": (),
        "entropy_floor": None,
        "created": "2026-01-01",
        "summaries": runs,
    }
    return Comparison(**{**values, **changes})


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what could ask for a file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.requests: list[str] = []
        self.ids: dict[str, int] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        wanted = ("src", "href", "xlink:href", "srcset", "data")
        found = [value or "" for name, value in attrs if name in wanted]
        self.requests += [value for value in found if not value.startswith("#")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


# --- the page -----------------------------------------------------------------------------


def test_page_is_one_whole_file() -> None:
    text = comparison_page(comparison(summary("vae", scale=0.01), summary("bn-vae")))
    page = Page(text)
    assert page.open == []
    assert page.requests == []
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in text
    # curves of KL and active units, latent spaces, KL per dimension
    assert page.tags.count("svg") == 2 + 2 + 1


def test_page_lets_no_markup_through() -> None:
    failed = (Failure("bn-vae", 0, EVIL),)
    bad = summary("vae", verdict={"state": EVIL, "evidence": EVIL, "advice": EVIL})
    text = comparison_page(comparison(bad, failures=failed, overrides=(EVIL,)))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 8
    assert Page(text).open == []


def test_page_of_failures_alone() -> None:
    only = comparison(recipes=("vae",), failures=(Failure("vae", 0, "non-finite KL"),))
    text = comparison_page(only)
    assert "vae, seed 0: failed: non-finite KL" in text
    assert "svg" not in Page(text).tags


def test_page_of_a_language_model_has_no_latent_pictures() -> None:
    text = comparison_page(comparison(language_model()))
    assert "Latent space" not in text
    assert f"<td>{DASH}</td>" in text


def test_pictures_have_equal_limits_and_a_system_without_prior_its_own() -> None:
    wild = summary("autoencoder", scale=50.0, metrics={"kl": metric(None, None)})
    text = comparison_page(comparison(summary("vae", scale=0.01), summary("bn-vae"), wild))
    space = text[text.index("Latent space</h2>") : text.index("Training</h2>")]
    pictures = space.split("<figure>")[1:]
    ticks = [re.findall(r">([−\d.]+)</text>", picture) for picture in pictures]
    assert len(pictures) == 3
    assert ticks[0] == ticks[1] != ticks[2]
    assert len(ticks[0]) > 4
    assert "its own scale" in pictures[2]
    assert "1σ" in pictures[0]
    assert "1σ" not in pictures[2]


# --- a sweep ------------------------------------------------------------------------------


def swept(*metrics: str, values: tuple[str, ...] = ("0", "0.5")) -> Comparison:
    """gm-vae for some values of beta, and a language model, which has none."""
    systems = {value: f"gm-vae, beta={value}" for value in values}
    runs = [
        summary(name, metrics={metric_: metric(100.0 - 9 * number) for metric_ in metrics})
        for number, name in enumerate(systems.values())
    ]
    sweep = Sweep("latents.z.divergence.beta", {"gm-vae": systems})
    return comparison(language_model(), *runs, sweep=sweep)


def test_a_sweep_is_told_and_drawn(tmp_path: Path) -> None:
    found = swept("nll", "bleu")
    found.write(tmp_path)
    assert found.title == "lstm-lm and gm-vae over beta"
    line = "latents.z.divergence.beta = 0, 0.5 in gm-vae"
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "3 systems, seed 0" in text
    assert f"<dd>{line}</dd>" in text
    assert "The trade-off over beta</h2>" in text
    assert Page(text).open == []
    assert f"- sweep: {line}" in (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert found.to_dict()["sweep"] == {
        "key": "latents.z.divergence.beta",
        "systems": {"gm-vae": {"0": "gm-vae, beta=0", "0.5": "gm-vae, beta=0.5"}},
    }
    picture = (tmp_path / "sweep.svg").read_text(encoding="utf-8")
    assert picture.startswith("<svg ")
    assert 'xmlns="http://www.w3.org/2000/svg"' in picture


def test_a_sweep_without_two_figures_is_not_drawn(tmp_path: Path) -> None:
    found = swept("kl")
    found.write(tmp_path)
    assert not (tmp_path / "sweep.svg").exists()
    assert "No system has both figures" in comparison_page(found)
    comparison(summary("vae")).write(tmp_path)
    assert not (tmp_path / "sweep.svg").exists()
    assert "trade-off" not in (tmp_path / "index.html").read_text(encoding="utf-8")


# --- mixtures and codes -------------------------------------------------------------------


def test_mixtures_and_clusters_have_tables_of_their_own() -> None:
    code = {"nll": metric(99.0), "mi_c": metric(0.9), "kl_c": metric(1.1)}
    mixture = {
        name: metric(2.0, unit="nats/sentence")
        for name in (
            "nll", "cluster_ami", "mi_c_mean", "mi_c", "variance", "dispersion", "kl_z_mixture",
            "kl_z_average", "kl_c", "accuracy_dialog_act", "cluster_purity", "accuracy_100",
        )
    }  # fmt: skip
    found = comparison(summary("dvae", metrics=code), summary("gm-vae", metrics=mixture))
    headings = {
        group: [column.heading for column in table.columns] for group, table in found.tables.items()
    }
    assert headings == {
        "standard": ["NLL"],
        "mixtures": [
            "KL(c)", "KL(z) avg.", "KL(z) mix.", "L_d", "Var", "L_mi", "L_mi / var.",
            "accuracy (dialog_act)",
        ],
        "representation": ["accuracy 100"],
        "clusters": ["purity", "AMI"],
    }  # fmt: skip
    row = found.tables["mixtures"].rows[0]
    assert [cell.value for cell in row.cells] == [1.1, None, None, None, None, 0.9, None, None]
    text = comparison_page(found)
    assert "Mixtures and codes</h2>" in text
    assert "Clusters, held against the labels</h2>" in text
    assert "<dt>L_mi / var.</dt>" in text
    assert Page(text).open == []


# --- figures ------------------------------------------------------------------------------


def test_collapse_is_drawn_as_collapse() -> None:
    dead, alive = summary("vae", scale=0.01), summary("bn-vae", scale=0.8)
    panels = [
        LatentPanel(run.name, run.means, np.array(run.labels), run.label_names, kl, units)
        for run, kl, units in ((dead, 0.01, 0.0), (alive, 9.0, 1.0))
    ]
    figure = collapse_pair(*panels)
    left, right = figure.axes
    assert left.get_xlim() == left.get_ylim() == right.get_xlim() == right.get_ylim()
    assert left.get_aspect() == right.get_aspect() == 1
    spread = [float(np.ptp(np.asarray(a.collections[0].get_offsets()))) for a in (left, right)]
    assert spread[0] < 0.1
    assert spread[1] > 1
    assert left.get_title(loc="left") == "vae: KL 0.0, 0 active units"
    assert right.get_title(loc="left") == "bn-vae: KL 9.0, 1 active unit"


def test_projection_keeps_the_scale_and_the_origin_of_the_prior() -> None:
    means = np.random.default_rng(0).normal(size=(4000, 12)) + 3
    points = project(means)
    assert points.shape == (4000, 2)
    np.testing.assert_allclose(points.std(0), 1, atol=0.1)
    assert np.linalg.norm(points, axis=1).max() <= np.linalg.norm(means, axis=1).max()
    np.testing.assert_array_equal(project(means[:, :2]), means[:, :2])
    np.testing.assert_array_equal(project(means[:, :1])[:, 1], 0)
    assert project(means[:1]).shape == (1, 2)
    with pytest.raises(UserError, match=r"\(N, D\)"):
        project(np.zeros((0, 4)))


def test_limits_stay_readable() -> None:
    assert common_limit([]) == 2.5
    assert common_limit([np.zeros((5, 3))]) == 2.5
    assert common_limit([np.zeros((5, 3)), np.full((5, 2), 900.0)]) == 6
    assert common_limit([np.full((5, 2), 2.9)]) == 3.5


def test_a_label_is_never_mathematics_nor_markup() -> None:
    names = ["$x_1$", "<b>&", "日本語"]
    svg = to_svg(latent_space(np.eye(3), np.arange(3), names), "three & more")
    assert svg.startswith("<svg ")
    assert "$x_1$" in svg
    assert "&lt;b&gt;&amp;" in svg
    assert "日本語" in svg
    assert 'aria-label="three &amp; more"' in svg
    assert "<metadata" not in svg


def test_many_classes_take_other_shapes() -> None:
    labels = np.arange(60) % 25 - 1
    figure = latent_space(
        np.random.default_rng(0).normal(size=(60, 4)), labels, list("abcdefghijklmnopqrstuvwx")
    )
    assert len(figure.axes[0].collections) == 3
    assert sum(len(np.asarray(c.get_offsets())) for c in figure.axes[0].collections) == 60


def test_curves_add_up_latents_and_leave_out_who_has_none() -> None:
    rows = [{"epoch": e, "validation/mi/z": 1.0, "validation/mi/c": 0.5 * e} for e in (1, 2)]
    figure = training_curves({"two": [rows, rows], "lm": [[{"epoch": 1}]]}, "mi")
    lines = figure.axes[0].lines
    assert len(lines) == 2
    np.testing.assert_array_equal(np.asarray(lines[0].get_ydata()), [1.5, 2.0])
    with pytest.raises(UserError, match="did you mean 'mi'"):
        training_curves({}, "m")


def test_figures_are_saved_by_suffix(tmp_path: Path) -> None:
    figure = latent_space(np.eye(3))
    save_figure(figure, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<?xml")
    with pytest.raises(UserError, match="unknown format"):
        save_figure(figure, tmp_path / "a.docx")
    with pytest.raises(RunError, match="cannot write"):
        save_figure(figure, tmp_path / "absent" / "a.png")


# --- tables -------------------------------------------------------------------------------


def test_errors_are_of_the_estimator_for_one_seed_and_over_seeds_for_more() -> None:
    one = build_table({"vae": [{"nll": metric(100.25)}]}, 1)
    assert one.rows[0].cells[0].standard_error == 0.4
    assert "of the estimator" in one.errors
    two = build_table({"vae": [{"nll": metric(100.0)}, {"nll": metric(101.0)}]}, 2)
    cell = two.rows[0].cells[0]
    assert cell.value == 100.5
    assert cell.standard_error == pytest.approx(0.5)
    assert "over seeds" in two.errors


def test_gaps_are_dashes_and_the_floor_has_a_row() -> None:
    runs = {
        "ae": [{"nll": metric(None, None), "mi": metric(None, None)}],
        "vae": [{"nll": metric(100.25), "mi": metric(0.013, 0.001)}],
        "gone": [],
    }
    table = build_table(runs, 2, floor=90.0)
    lines = table.to_text().splitlines()
    assert lines[2].split() == ["ae", "(1", "of", "2", "seeds)", DASH, DASH]
    assert lines[3].split()[-6:] == ["100.25", "±", "0.40", "0.0130", "±", "0.0010"]
    assert lines[4].split() == ["gone", "(failed)", DASH, DASH]
    assert lines[5].split() == ["entropy", "of", "the", "language", "(exact)", "90.00", DASH]
    assert len({len(line) for line in lines[1:6]}) <= 2
    assert f"| gone (failed) | {DASH} | {DASH} |" in table.to_markdown()
    assert table.columns[0].definition.startswith("what it is")


def test_a_unit_is_not_said_twice() -> None:
    metrics = {"bleu": metric(1.0, unit="BLEU"), "nll": metric(2.5, unit="nats/sentence")}
    first = build_table({"vae": [metrics]}, 1).to_markdown().splitlines()[0]
    assert first == "| system | BLEU | NLL (nats/sentence) |"


def test_a_wide_table_goes_on_below() -> None:
    metrics = {f"metric_{n}": metric(-1.5) for n in range(20)}
    text = build_table({"vae": [metrics]}, 1).to_text()
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("vae") == text.count("\n\n") + 1 > 1
    assert text.count("−1.50") == 20


def test_markdown_cannot_be_broken_by_names() -> None:
    text = comparison(summary("a|b")).to_markdown()
    assert "| a\\|b |" in text
    assert "<script" not in text


# --- summaries ----------------------------------------------------------------------------


def test_summary_comes_back_as_it_was(tmp_path: Path) -> None:
    for run in (summary("vae"), language_model()):
        run.save(tmp_path)
        back = RunSummary.load(tmp_path)
        assert back is not None
        np.testing.assert_allclose(back.means, run.means, atol=1e-4)
        assert back.means.shape == run.means.shape
        for field in fields(run):
            if field.name != "means":
                assert getattr(back, field.name) == getattr(run, field.name)
    assert list(tmp_path.iterdir()) == [tmp_path / "summary.json"]


def test_damaged_summary_is_named(tmp_path: Path) -> None:
    assert RunSummary.load(tmp_path) is None
    for text in ("{", "[]", '{"format_version": 1}', '{"format_version": 99}'):
        (tmp_path / "summary.json").write_text(text, encoding="utf-8")
        with pytest.raises(RunError, match=r"summary\.json cannot be read"):
            RunSummary.load(tmp_path)


def test_test_sentences_are_spread_and_labelled(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    rows = [f'{{"text": "s {n}", "label": {n % 12}}}' for n in range(2500)]
    path.write_text("\n".join([*rows, "", '{"text": " ", "label": 1}']), encoding="utf-8")
    found = TestSentences.read(path, "text", None)
    assert (found.total, len(found.texts)) == (2500, 1000)
    assert (found.texts[0], found.texts[-1]) == ("s 0", "s 2499")
    assert found.label_names == [str(n) for n in range(12)]
    assert found.labels is not None
    assert found.labels[-1] == 2499 % 12
    assert len(found.readable(4)) == 4

    plain = tmp_path / "test.txt"
    plain.write_text("a b\n\nc d\n", encoding="utf-8")
    found = TestSentences.read(plain, "text", "label")
    assert (found.texts, found.labels, found.total) == (["a b", "c d"], None, 2)
