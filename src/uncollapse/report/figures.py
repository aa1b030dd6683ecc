"""One figure of one run, by name, as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from uncollapse.errors import UserError, unknown_name
from uncollapse.report.run_figures import FIGURES, Request, snapshots_of, title_of

if TYPE_CHECKING:
    from uncollapse.loading import Data
    from uncollapse.plots.components import By
    from uncollapse.text_vae import TextVAE

SUFFIXES = (".svg", ".pdf", ".png")
WITHOUT_SENTENCES = ("training", "components-over-training")
OF_COMPONENTS = ("components", "components-over-training")


def plot_run(
    vae: TextVAE,
    what: str,
    data: Data | None,
    out: str | Path,
    *,
    seed: int = 0,
    batch_size: int = 32,
    group: int = 0,
    by: str | None = None,
    beside: TextVAE | None = None,
) -> Path:
    """Draw one figure of a trained model.

    Parameters
    ----------
    vae : TextVAE
    what : str
        One of `FIGURES`.
    data : path, hub data set name or sequence of str, or None
        Sentences that the model has not seen; ``training`` and ``components-over-training`` do
        without.
    out : path
        A new file, whose suffix says the format: ``.svg``, ``.pdf`` or ``.png``; ``.gif`` for
        an animation of ``components-over-training``.
    seed : int
        Of everything drawn.
    batch_size : int
        Sentences encoded together.
    group : int
        Which mixture of a latent ``components`` and ``components-over-training`` show.
    by : {"component", "label"}, optional
        What colours say there; if not said, the component where there are any.
    beside : TextVAE, optional
        A second model, on the same axes, for ``components``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UserError
        Before anything is computed: for an unknown figure, a file that exists or cannot be,
        missing data, a model without a latent where the figure is about one. Later, for bad
        data or a model that has no such figure.
    RunError
        If the file cannot be written.
    """
    out = Path(out)
    check_request(what, out, seed, group=group, by=by, beside=beside is not None)
    if what not in WITHOUT_SENTENCES and data is None:
        raise UserError(f"the figure {what} needs sentences: give them with --data")
    for model in (vae, beside):
        if what != "training" and model is not None and model.model.latent_dim == 0:
            raise UserError(f"{model.recipe.name} is a language model: it has no latent variable")
    # the check has made sure that it is one of the two
    request = Request(vae, data, seed, batch_size, group, cast("By | None", by), beside)
    if out.suffix.lower() == ".gif":
        from uncollapse.plots.components import animate

        snapshots = snapshots_of(request)
        return animate(
            snapshots, out, group, title=title_of(vae, snapshots[0], group), by=request.by
        )

    from uncollapse.plots import save_figure

    save_figure(FIGURES[what](request), out)
    return out


def check_request(
    what: str,
    out: Path,
    seed: int,
    *,
    group: int = 0,
    by: str | None = None,
    beside: bool = False,
) -> None:
    """Refuse an unknown figure, a file that exists or cannot be, or options that do not fit.

    Raises
    ------
    UserError
    """
    if what not in FIGURES:
        raise unknown_name("figure", what, FIGURES)
    _check_file(out, (".gif", *SUFFIXES) if what == "components-over-training" else SUFFIXES)
    if seed < 0:
        raise UserError(f"the seed must not be negative, but is {seed}")
    if what not in OF_COMPONENTS and (group or by is not None):
        raise UserError(f"the figure {what} has no group to choose, and no colours")
    if what != "components" and beside:
        raise UserError(f"the figure {what} shows one model; components can show two")
    if by is not None:
        from uncollapse.plots.components import By

        if by not in get_args(By):
            raise unknown_name("meaning of colours", by, get_args(By))


def plot_landscape(family: str, out: str | Path, *, weight: float = 0.5) -> Path:
    """Draw what melts two components of a family; see `dispersion_landscape`.

    Parameters
    ----------
    family : str
    out : path
        A new file, whose suffix says the format: ``.svg``, ``.pdf`` or ``.png``.
    weight : float
        Of the first component; between 0 and 1.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UserError
        For an unknown family, a weight out of range, or a file that exists or cannot be.
    RunError
        If the file cannot be written.
    """
    from uncollapse.plots import save_figure
    from uncollapse.plots.dispersion import dispersion_landscape

    out = Path(out)
    _check_file(out, SUFFIXES)
    save_figure(dispersion_landscape(family, weight=weight), out)
    return out


def _check_file(out: Path, suffixes: Sequence[str]) -> None:
    if out.suffix.lower() not in suffixes:
        known = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
        raise UserError(f"{out}: the name must end in {known}")
    if out.exists():
        raise UserError(f"{out} exists already")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent} is no folder")
