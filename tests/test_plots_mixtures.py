"""Pictures of mixtures: the numbers behind them, their common axes, and the files they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Ellipse
from PIL import Image

from uncollapse import TextVAE, cli
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import RunError, UserError
from uncollapse.evaluation.snapshot import FINISHED, FOLDER, Snapshot, snapshot_path, write_snapshot
from uncollapse.model import Model
from uncollapse.plots import save_figure, to_svg
from uncollapse.plots.component_geometry import (
    Group,
    ellipse,
    group_of,
    melted,
    same_window,
    view_of,
)
from uncollapse.plots.components import (
    MOST_PANELS,
    animate,
    component_pair,
    component_space,
    components_over_training,
)
from uncollapse.report.figures import plot_run

TEXTS = ["a", "b a", "c a b", "a a a a", "c c", "b", "d a c b a", "a b c d"]


def snapshot(
    centres: np.ndarray,
    deviation: float = 0.5,
    step: int = FINISHED,
    sentences: int = 60,
    labels: bool = False,
) -> Snapshot:
    """Sentences about the components ``(M, K, G)`` that they belong to, in turn."""
    centres = np.asarray(centres, np.float32)
    groups, count, dim = centres.shape
    component = np.stack([np.arange(sentences) % count] * groups, 1)
    noise = np.random.default_rng(0).normal(0, 0.1, (sentences, groups, dim))
    means = centres[np.arange(groups), component] + noise
    return Snapshot(
        latent="z",
        step=step,
        means=means.reshape(sentences, -1).astype(np.float32),
        component=component,
        labels=np.arange(sentences) % 3 - 1 if labels else None,
        label_names=("left", "right") if labels else (),
        component_means=centres,
        component_deviations=np.full_like(centres, deviation),
        deviation=None,
    )


def spread(distance: float, dim: int = 2, count: int = 4, groups: int = 1) -> np.ndarray:
    return distance * np.random.default_rng(1).normal(size=(groups, count, dim))


def plain(dim: int = 3, scale: float = 1.0) -> Snapshot:
    """Without a mixture."""
    means = np.random.default_rng(2).normal(0, scale, (50, dim)).astype(np.float32)
    return Snapshot("z", FINISHED, means, None, None, (), None, None, np.ones(dim, np.float32))


def group(centres: Any, deviations: Any) -> Group:
    centres, deviations = np.asarray(centres, float), np.asarray(deviations, float)
    return Group(centres, np.arange(len(centres)), None, centres, deviations, None)


def ellipses(axes: Axes) -> list[Ellipse]:
    return [patch for patch in axes.patches if type(patch) is Ellipse]


def dots(axes: Axes) -> np.ndarray:
    return np.concatenate([np.asarray(part.get_offsets()) for part in axes.collections])


def written(figure: Figure) -> str:
    return to_svg(figure, "a figure")


# --- geometry ---------------------------------------------------------------------------------


def test_an_ellipse_is_the_spread_seen_along_its_axes() -> None:
    assert ellipse(np.array([0.5, 2.0]), np.eye(2)) == (0.5, 2.0, 0.0)
    random = np.random.default_rng(3)
    deviations = np.array([0.3, 1.0, 2.0, 0.7])
    axes = np.linalg.qr(random.normal(size=(4, 4)))[0][:2]
    width, height, angle = ellipse(deviations, axes)
    turn = np.radians(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    found = rotation @ np.diag([width**2, height**2]) @ rotation.T
    np.testing.assert_allclose(found, axes @ np.diag(deviations**2) @ axes.T, atol=1e-12)
    draws = random.normal(size=(200_000, 4)) * deviations @ axes.T
    np.testing.assert_allclose(found, np.cov(draws.T), atol=0.03)


def test_components_have_melted_where_mean_and_deviation_agree() -> None:
    centres = [[0, 0], [0.09, 0], [0, 5], [0.18, 0]]
    assert melted(np.array(centres), np.ones((4, 2))) == [[0, 1, 3], [2]]
    assert melted(np.array(centres), 0.1 * np.ones((4, 2))) == [[0], [1], [2], [3]]
    widths = np.array([[1.0, 1.0], [1.0, 1.3]])
    assert melted(np.zeros((2, 2)), widths) == [[0], [1]]  # one about the other has not melted
    assert melted(np.ones((3, 1)), np.zeros((3, 1))) == [[0, 1, 2]]
    assert melted(np.zeros((0, 2)), np.zeros((0, 2))) == []


def test_two_dimensions_are_seen_as_they_are() -> None:
    view = view_of([group_of(snapshot(spread(3)), 0)])
    np.testing.assert_array_equal(view.axes, np.eye(2))
    assert view.names == ["dimension 1", "dimension 2"]


def test_more_dimensions_are_seen_along_common_principal_axes() -> None:
    # components differ in the third number, sentences in the first
    centres = np.zeros((2, 4))
    centres[:, 2] = (-3, 3)
    points = np.zeros((500, 4))
    points[:, 0] = np.linspace(-5, 5, 500)
    found = Group(points, np.zeros(500, int), None, centres, np.ones((2, 4)), None)
    view = view_of([found])
    np.testing.assert_allclose(np.abs(view.axes @ view.axes.T), np.eye(2), atol=1e-12)
    seen = np.abs(view.axes)
    np.testing.assert_allclose(sorted(seen.argmax(1)), [0, 2])
    assert view.names[0] == "first principal axis of 4 dimensions"
    one = view_of([group(np.arange(3.0).reshape(1, 3), np.ones((1, 3)))])
    assert one.axes.shape == (2, 3)  # however few there are


def test_the_axes_hold_sentences_and_two_deviations() -> None:
    found = group_of(snapshot(spread(3), deviation=1.5), 0)
    view = view_of([found])
    assert (found.centres - 2 * 1.5 >= view.low).all()
    assert (found.centres + 2 * 1.5 <= view.high).all()
    np.testing.assert_allclose(np.ptp([view.low, view.high], axis=0), view.high[0] - view.low[0])
    # sentences that lie on one another do not fill the picture
    collapsed = view_of([group_of(plain(2, scale=1e-3), 0)])
    assert collapsed.high[0] - collapsed.low[0] >= 4
    codes = Snapshot("c", 0, np.zeros((5, 2), np.float32), None, None, (), None, None, None)
    assert view_of([group_of(codes, 0)]).high[0] >= 0.5


def test_a_component_without_sentences_may_lie_outside() -> None:
    base = snapshot(spread(1, count=3))
    assert base.component is not None
    assert base.component_means is not None
    far = base.component_means.copy()
    far[0, 2] = 1e4
    component = np.minimum(base.component, 1)
    lost = Snapshot(**{**vars(base), "component_means": far, "component": component})
    view = view_of([group_of(lost, 0)])
    assert view.high.max() < 100
    text = written(component_space(lost))
    assert "1 of 3 components lie outside" in text
    assert "no sentences: 2" in text


def test_windows_become_the_same() -> None:
    views = [view_of([group_of(snapshot(spread(scale, dim=5)), 0)]) for scale in (0.1, 8)]
    same = same_window(views)
    np.testing.assert_array_equal(same[0].low, same[1].low)
    np.testing.assert_array_equal(same[0].high, same[1].high)
    for view in views:
        assert (same[0].low <= view.low + 1e-9).all()
        assert (same[0].high >= view.high - 1e-9).all()
    np.testing.assert_array_equal(same[1].axes, views[1].axes)


# --- pictures of components -------------------------------------------------------------------


def test_dots_and_ellipses_are_drawn_as_they_are() -> None:
    found = snapshot(spread(4), deviation=0.7)
    axes = component_space(found, title="dgm-vae").axes[0]
    np.testing.assert_allclose(np.sort(dots(axes), 0), np.sort(found.means, 0), rtol=1e-6)
    drawn = ellipses(axes)
    assert found.component_means is not None
    assert len(drawn) == 2 * 4
    for number, (one, two) in enumerate(_pairs(drawn)):
        np.testing.assert_allclose(one.center, found.component_means[0, number], rtol=1e-6)
        assert one.width == pytest.approx(2 * 0.7, rel=1e-6)  # one deviation to either side
        assert two.height == pytest.approx(4 * 0.7, rel=1e-6)
    assert axes.get_aspect() == 1
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["0", "1", "2", "3"]
    assert "within" not in written(component_space(found))


def _pairs(drawn: list[Ellipse]) -> list[tuple[Ellipse, Ellipse]]:
    return list(zip(drawn[::2], drawn[1::2], strict=True))


def test_melted_components_share_their_line_and_are_counted() -> None:
    figure = component_space(snapshot(spread(0.001)))
    axes = figure.axes[0]
    assert not ellipses(axes)
    pieces = [patch for patch in axes.patches if isinstance(patch, Arc) and patch.width < 1.5]
    assert sum(piece.theta2 - piece.theta1 for piece in pieces) == pytest.approx(360)
    assert len({piece.get_edgecolor() for piece in pieces}) == 4
    assert {piece.width for piece in pieces} == {1.0}
    text = written(figure)
    assert "4 of 4 components within 0.1σ of another" in text
    assert "0, 1, 2, 3" in text
    # two deviations still fill the picture, not the noise between components
    low, high = axes.get_xlim()
    assert 2 <= high - low < 3


def test_colours_say_components_or_labels() -> None:
    found = snapshot(spread(4), labels=True)
    assert "left" not in written(component_space(found))
    text = written(component_space(found, by="label"))
    assert "left" in text
    assert "right" in text
    labelled = Snapshot(**{**vars(plain()), "labels": found.labels[:50], "label_names": ("l", "r")})  # type: ignore[index]
    assert ">r<" in written(component_space(labelled))  # nothing else to say
    with pytest.raises(UserError, match="no labels"):
        component_space(snapshot(spread(4)), by="label")
    with pytest.raises(UserError, match="no components"):
        component_space(plain(), by="component")


def test_without_a_mixture_the_prior_is_drawn() -> None:
    axes = component_space(plain(scale=0.001)).axes[0]
    assert [round(patch.width, 6) for patch in ellipses(axes)] == [2, 4]
    assert axes.get_xlabel() == "first principal axis of 3 dimensions"


def test_names_of_components() -> None:
    centres = np.array([[[0, 0], [5, 5], [5, -5]]])
    text = written(component_space(snapshot(centres), names={1: "questions", 2: "x" * 40}))
    assert "questions" in text
    assert "x" * 23 + "…" in text
    assert "x" * 24 not in text


def test_one_number_is_drawn_in_rows() -> None:
    found = snapshot(spread(3, dim=1), deviation=0.5)
    axes = component_space(found).axes[0]
    assert axes.get_ylabel() == "component"
    points = dots(axes)
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(found.means[:, 0]), rtol=1e-6)
    assert set(points[:, 1]) == {0, 1, 2, 3}
    lengths = [float(np.ptp(np.asarray(line.get_xdata()))) for line in axes.lines]
    np.testing.assert_allclose(lengths, [1, 2, 0] * 4, atol=1e-6)
    component_space(plain(1))


def test_each_group_has_its_picture() -> None:
    found = snapshot(spread(3, groups=2))
    for number in (0, 1):
        points = dots(component_space(found, number).axes[0])
        expected = found.means.reshape(-1, 2, 2)[:, number]
        np.testing.assert_allclose(np.sort(points, 0), np.sort(expected, 0), rtol=1e-6)
    with pytest.raises(UserError, match="no group 2, groups 0 to 1"):
        component_space(found, 2)
    with pytest.raises(UserError, match="only group 0"):
        component_space(plain(), -1)


def test_a_pair_has_common_axes() -> None:
    for dim in (2, 4):
        left, right = snapshot(spread(0.01, dim)), snapshot(spread(5, dim))
        figure = component_pair(left, right, titles=("gm-vae", "dgm-vae"))
        one, two = figure.axes
        assert one.get_xlim() == two.get_xlim()
        assert one.get_ylim() == two.get_ylim()
        assert one.get_title("left") == "gm-vae"
        assert "4 of 4 components" in written(figure)
    with pytest.raises(UserError, match="cannot share"):
        component_pair(snapshot(spread(1, 1)), snapshot(spread(1, 2)))


def course(count: int = 3, dim: int = 2, labels: bool = False) -> list[Snapshot]:
    """Components that melt."""
    return [
        snapshot(spread(5.0 * 0.2**number, dim), step=100 * number, labels=labels)
        for number in range(count)
    ]


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_panels_over_training_have_common_axes(dim: int) -> None:
    figure = components_over_training(course(3, dim), title="gm-vae")
    assert len(figure.axes) == 3
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["before training", "after 100 batches", "after 200 batches"]


def test_of_many_snapshots_some_are_shown() -> None:
    figure = components_over_training(course(20))
    titles = [axes.get_title("left") for axes in figure.axes]
    assert len(titles) == MOST_PANELS
    assert (titles[0], titles[-1]) == ("before training", "after 1,900 batches")
    with pytest.raises(UserError, match="no snapshots"):
        components_over_training([])


@pytest.mark.parametrize("labels", [False, True])
def test_an_animation_has_a_frame_a_snapshot(labels: bool, tmp_path: Path) -> None:
    by = "label" if labels else None
    found = animate(course(3, labels=labels), tmp_path / "a.gif", title="gm-vae", by=by)
    frames, axes = [], []
    with Image.open(found) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
        for number in range(3):
            image.seek(number)
            pixels = np.asarray(image.convert("L"))
            frames.append(pixels)
            # the frame's left spine: the column that is grey from top to bottom
            axes.append(int(((pixels < 235) & (pixels > 190)).sum(0).argmax()))
    assert len({frame.shape for frame in frames}) == 1
    assert len(set(axes)) == 1  # axes stay where they are
    assert not np.array_equal(frames[0], frames[2])
    with pytest.raises(RunError, match="cannot write"):
        animate(course(), tmp_path / "nowhere" / "a.gif")
    with pytest.raises(UserError, match="no snapshots"):
        animate([], tmp_path / "b.gif")


# --- figures of a run -------------------------------------------------------------------------

SIZES = [
    *("decoder.hidden_dim=6", "decoder.embedding_dim=6", "encoder.hidden_dim=6"),
    *("encoder.embedding_dim=5", "latents.z.dim=2"),
]


def untrained(name: str, *overrides: str) -> TextVAE:
    vae = TextVAE.from_recipe(name, overrides=[*SIZES, *overrides])
    vae._tokenizer = Tokenizer.train(TEXTS, "whitespace", None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae._model = Model(vae.recipe, len(vae.tokenizer))
    return vae


def test_components_of_a_model(tmp_path: Path) -> None:
    gm, dgm = (untrained(name, "latents.z.groups=3") for name in ("gm-vae", "dgm-vae"))
    out = tmp_path / "one.svg"
    assert plot_run(gm, "components", TEXTS, out, group=2) == out
    assert "gm-vae, group 2" in out.read_text(encoding="utf-8")
    plot_run(gm, "components", TEXTS, tmp_path / "two.svg", beside=dgm)
    assert "dgm-vae, group 0" in (tmp_path / "two.svg").read_text(encoding="utf-8")
    rows: list[Mapping[str, str]] = [
        {"text": text, "label": "ab"[number % 2]} for number, text in enumerate(TEXTS)
    ]
    plot_run(gm, "components", cast("Any", rows), tmp_path / "labels.svg", by="label")
    assert ">b<" in (tmp_path / "labels.svg").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="no labels"):
        plot_run(gm, "components", TEXTS, tmp_path / "none.svg", by="label")
    with pytest.raises(UserError, match="no group 3"):
        plot_run(gm, "components", TEXTS, tmp_path / "none.svg", group=3)


def test_names_that_people_gave(tmp_path: Path) -> None:
    vae = untrained("gm-vae", "latents.z.groups=2")
    vae._names = {"z.component": {"3-*": "commands", "*-1": "questions"}}
    for group, name, other in ((0, "commands", "questions"), (1, "questions", "commands")):
        out = tmp_path / f"{group}.svg"
        plot_run(vae, "components", TEXTS, out, group=group)
        text = out.read_text(encoding="utf-8")
        assert name in text
        assert other not in text
    for group in (2, -1):
        with pytest.raises(UserError, match=f"no group {group}, groups 0 to 1"):
            plot_run(vae, "components", TEXTS, tmp_path / "none.svg", group=group)


def test_a_title_counts_the_mixtures_of_what_is_shown(tmp_path: Path) -> None:
    for name in ("dcm-vae", "di-vae"):  # other latents' indexes are no groups
        latents = ["latents.z.dim=5"] if name == "dcm-vae" else ["latents.c.dim=5"]
        vae = TextVAE.from_recipe(name, overrides=[*SIZES[:-1], *latents])
        vae._tokenizer = Tokenizer.train(TEXTS, "whitespace", None)
        vae._model = Model(vae.recipe, len(vae.tokenizer))
        out = tmp_path / f"{name}.svg"
        plot_run(vae, "components", TEXTS, out)
        text = out.read_text(encoding="utf-8")
        assert name in text
        assert "group" not in text


def test_names_of_axes_are_not_cut_off(tmp_path: Path) -> None:
    labelled = replace(plain(5), labels=np.zeros(len(plain(5).means), int), label_names=("news",))
    figure = component_space(labelled, by="label")
    save_figure(figure, tmp_path / "a.png")
    assert figure.axes[0].yaxis.label.get_window_extent().x0 >= 0


def test_components_over_training_of_a_run(tmp_path: Path) -> None:
    vae = untrained("gm-vae")
    vae._run = tmp_path / "run"
    with pytest.raises(UserError, match=r"run has no snapshots.*training\.snapshots=\[0, 200"):
        plot_run(vae, "components-over-training", None, tmp_path / "a.svg")
    for part in course():
        write_snapshot(part, snapshot_path(tmp_path / "run" / FOLDER, part.step))
    for suffix in ("svg", "pdf", "png", "gif"):
        plot_run(vae, "components-over-training", None, tmp_path / f"a.{suffix}")
    assert "after 200 batches" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert (tmp_path / "a.gif").read_bytes()[:6] == b"GIF89a"
    with pytest.raises(UserError, match="exists already"):
        plot_run(vae, "components-over-training", None, tmp_path / "a.gif")


def test_mistakes_are_found_before_anything_is_computed(tmp_path: Path) -> None:
    vae, other = untrained("gm-vae"), untrained("vae")
    out, missing = tmp_path / "a.svg", "no such file.txt"
    with pytest.raises(UserError, match="needs sentences"):
        plot_run(vae, "components", None, out)
    with pytest.raises(UserError, match=r"must end in \.svg, \.pdf or \.png"):
        plot_run(vae, "components", missing, tmp_path / "a.gif")
    with pytest.raises(UserError, match="no group to choose"):
        plot_run(other, "latent-space", missing, out, group=1)
    with pytest.raises(UserError, match="shows one model"):
        plot_run(vae, "components-over-training", None, out, beside=other)
    with pytest.raises(UserError, match="did you mean 'label'"):
        plot_run(vae, "components", missing, out, by="labels")
    language_model = TextVAE.from_recipe("lstm-lm")
    language_model._tokenizer, language_model._model = (
        vae.tokenizer,
        Model(language_model.recipe, len(vae.tokenizer)),
    )
    with pytest.raises(UserError, match="language model"):
        plot_run(vae, "components", missing, out, beside=language_model)
    assert not list(tmp_path.iterdir())


def test_from_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["uncollapse", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    out = tmp_path / "gamma.svg"
    assert call("landscape", "gamma", "--out", out, "--weight", 0.9) == (0, f"{out}\n", "")
    assert "weights 0.9 and 0.1" in out.read_text(encoding="utf-8")
    code, _, err = call("landscape", "gama", "--out", tmp_path / "b.svg")
    assert (code, "did you mean 'gamma'" in err) == (2, True)
    vae = untrained("dgm-vae")
    data = tmp_path / "data.txt"
    data.write_text("\n".join(TEXTS), encoding="utf-8")
    vae.save_pretrained(tmp_path / "model")
    given = ["plot", tmp_path / "model", "--what", "components", "--data", data]
    picture = tmp_path / "c.svg"
    code, shown, err = call(*given, "--out", picture, "--beside", tmp_path / "model", "--group", 1)
    assert (code, shown) == (0, f"{picture}\n"), err
    code, _, err = call(*given, "--out", tmp_path / "d.svg", "--by", "label")
    assert (code, "no labels" in err) == (2, True)
    code, _, err = call(
        "plot",
        tmp_path / "model",
        "--what",
        "components-over-training",
        "--out",
        tmp_path / "e.gif",
    )
    assert (code, "has no snapshots" in err) == (2, True)
