"""The latent space at one moment: where sentences lie, and where the prior's components do."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from uncollapse.data.batches import sequential_batches
from uncollapse.errors import RunError, UserError
from uncollapse.evaluation.lagging import obstacle, posterior_means
from uncollapse.evaluation.passes import evaluating
from uncollapse.latents.priors import Mixture, StandardNormal

if TYPE_CHECKING:
    from uncollapse.data.corpus import Corpus
    from uncollapse.model import Model

SENTENCES = 1_000  # more would only hide one another
POINTS = 81  # of either grid over z, on which the model's own posterior is integrated
FOLDER = "snapshots"  # in a run folder
FINISHED = -1  # instead of a number of batches
# arrays that a file need not have
OPTIONAL = (
    *("component", "labels", "component_means", "component_deviations", "deviation"),
    "model_means",
)


@dataclass(frozen=True)
class Snapshot:
    """One latent of a model: the first under a mixture, or else the first of all.

    A latent has D numbers, which its M groups share out: G each. Without a mixture M is 1.

    Attributes
    ----------
    latent : str
        Its name.
    step : int
        Training batches that the model has seen; `FINISHED` for one that is not in training.
    means : ndarray
        ``(N, D)`` float32: posterior means, in coordinates in which the prior is the same in
        every context.
    component : ndarray or None
        ``(N, M)`` int64: the most probable component of every sentence; None without a mixture.
    labels : ndarray or None
        ``(N,)`` int64: class of every sentence, −1 where missing; None without labels.
    label_names : tuple of str
    component_means, component_deviations : ndarray or None
        ``(M, K, G)`` float32: of the prior's components, means and standard deviations of each
        number; None without a mixture.
    deviation : ndarray or None
        ``(D,)`` float32: standard deviations of a Gaussian prior; None under other priors.
    model_means : ndarray or None
        ``(N,)`` float32: of a latent of one dimension that was looked at in training, means of
        the model's own posterior p(z|x).
    """

    latent: str
    step: int
    means: np.ndarray
    component: np.ndarray | None
    labels: np.ndarray | None
    label_names: tuple[str, ...]
    component_means: np.ndarray | None
    component_deviations: np.ndarray | None
    deviation: np.ndarray | None
    model_means: np.ndarray | None = None

    @property
    def groups(self) -> int:
        """M."""
        return 1 if self.component_means is None else len(self.component_means)

    @property
    def moment(self) -> str:
        """Such as ``after 200 batches``; nothing for a model that is not in training."""
        if self.step == FINISHED:
            return ""
        batches = "1 batch" if self.step == 1 else f"{self.step:,} batches"
        return f"after {batches}" if self.step else "before training"


def take_snapshot(
    model: Model,
    corpus: Corpus,
    step: int = FINISHED,
    *,
    model_means: bool = False,
    batch_size: int = 32,
) -> Snapshot:
    """Look at a model's latent space with at most `SENTENCES` evenly spread sentences.

    Dropout is off and nothing of the model changes.

    Parameters
    ----------
    model : Model
    corpus : Corpus
        Its first column of labels, if there is one, colours the sentences.
    step : int
        Training batches that the model has seen.
    model_means : bool
        Whether to find the means of the model's own posterior too, where z has one dimension.
    batch_size : int
        Sentences encoded together.

    Raises
    ------
    UserError
        For a language model.
    """
    latents = model.named_latents()
    if not latents:
        raise UserError("a language model has no latent variable")
    mixtures = [name for name, latent in latents.items() if isinstance(latent.prior, Mixture)]
    name = (mixtures or list(latents))[0]
    rows = np.linspace(0, len(corpus) - 1, min(SENTENCES, len(corpus))).round().astype(np.int64)
    chosen = corpus.select(np.unique(rows))
    means, components, index = [], [], []
    with evaluating(model) as device:
        for batch in sequential_batches(chosen, batch_size):
            found = model.infer(batch.to(device))[name]
            own = found.prior.relative_points(found.posterior.mean)
            means.append(own.float().cpu())
            if found.log_weights is not None:
                components.append(found.log_weights.argmax(-1).cpu())
            index.append(batch.index)
        spread = _components(latents[name].prior)
    order = torch.cat(index).argsort()
    exact = None
    if model_means and obstacle(model) is None:
        integrated = posterior_means(
            model, chosen, sentences=len(chosen), points=POINTS, batch_size=batch_size
        )
        exact = integrated.model.astype(np.float32)
    return Snapshot(
        name,
        step,
        torch.cat(means)[order].numpy(),
        torch.cat(components)[order].numpy() if components else None,
        chosen.labels,
        tuple(chosen.label_names),
        *spread,
        exact,
    )


def _components(
    prior: object,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Means and deviations ``(M, K, G)`` of components, and ``(D,)`` of a Gaussian prior."""
    if isinstance(prior, StandardNormal):
        return None, None, prior.deviation.float().cpu().numpy()
    if not isinstance(prior, Mixture):
        return None, None, None
    natural = prior.natural.detach()  # (M, U, K, P)
    both = (prior.family.mean(natural), prior.family.variance(natural).sqrt())  # (M, U, K, E)
    means, deviations = (part.transpose(1, 2).flatten(2).float().cpu().numpy() for part in both)
    return means, deviations, None


# --- files ------------------------------------------------------------------------------------


def snapshot_path(folder: Path, step: int) -> Path:
    """Where a snapshot is kept, such as ``snapshots/step-000200.npz``."""
    return folder / f"step-{step:06d}.npz"


def write_snapshot(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot whole or not at all.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    values = {field.name: getattr(snapshot, field.name) for field in fields(Snapshot)}
    arrays: dict[str, Any] = {k: np.asarray(v) for k, v in values.items() if v is not None}
    # without a class, NumPy would call the empty list one of numbers
    arrays["label_names"] = np.asarray(snapshot.label_names, dtype=np.str_)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None


def read_snapshots(run: Path) -> list[Snapshot]:
    """The snapshots that the training of a run has kept, in order; none if it has kept none.

    Raises
    ------
    RunError
        If a file is damaged.
    """
    found = {
        int(match[1]): path
        for path in (run / FOLDER).glob("step-*.npz")
        if (match := re.fullmatch(r"step-(\d+)\.npz", path.name))
    }
    return [read_snapshot(found[step]) for step in sorted(found)]


def read_snapshot(path: Path) -> Snapshot:
    """Read one snapshot; nothing in it is executed.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, np.ndarray] = dict(file)
        return Snapshot(
            latent=str(arrays["latent"]),
            step=int(arrays["step"]),
            means=arrays["means"],
            label_names=tuple(map(str, arrays["label_names"])),
            **{name: arrays.get(name) for name in OPTIONAL},
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise RunError(f"{path} is damaged: not a snapshot of a latent space") from None
