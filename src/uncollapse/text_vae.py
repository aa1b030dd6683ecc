"""`TextVAE`: the object that people hold. Text in, numpy arrays or text out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from uncollapse import saving
from uncollapse.config import Recipe
from uncollapse.data.batches import sequential_batches
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.decoders.generation import Method, generate
from uncollapse.device import check_seed, find_device
from uncollapse.distributions.base import Distribution, join
from uncollapse.errors import UserError
from uncollapse.evaluation.suite import probe
from uncollapse.loading import Data, corpus_of
from uncollapse.model import Model
from uncollapse.model_card import model_card
from uncollapse.recipes import load_recipe, with_latent_dim
from uncollapse.training.verdict import Verdict, verdict

if TYPE_CHECKING:
    from uncollapse.evaluation.metric import Metric


class TextVAE:
    """A variational autoencoder of text: train, measure, encode, write.

    Parameters
    ----------
    recipe : Recipe
        The system; see `from_recipe`.

    Attributes
    ----------
    recipe : Recipe
    model : Model
        The network, after `fit` or `from_pretrained`.
    tokenizer : Tokenizer
        Likewise.
    history_ : list of dict
        One row an epoch, after `fit`.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.history_: list[dict[str, Any]] = []
        self._model: Model | None = None
        self._tokenizer: Tokenizer | None = None
        self._run: Path | None = None

    @classmethod
    def from_recipe(
        cls, name: str | Path, *, latent_dim: int | None = None, overrides: Iterable[str] = ()
    ) -> TextVAE:
        """An untrained model of a named recipe, or of a recipe file.

        Parameters
        ----------
        name : str or Path
            See ``uncollapse recipes``, or the path of a ``.yaml`` file.
        latent_dim : int, optional
            Dimensions of every latent.
        overrides : iterable of str
            ``"section.key=value"``.

        Raises
        ------
        UserError
            Unknown recipe or key, or a value that does not fit.
        """
        recipe = load_recipe(name, overrides)
        return cls(recipe if latent_dim is None else with_latent_dim(recipe, latent_dim))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> TextVAE:
        """Load a saved model or a finished run; nothing in the folder is executed.

        Raises
        ------
        UserError
            If there is no model.
        RunError
            If a file is damaged.
        """
        folder = Path(folder)
        model, recipe, tokenizer = saving.read_model(folder)
        vae = cls(recipe)
        vae._model, vae._tokenizer, vae._run = model, tokenizer, folder
        history = folder / "history.jsonl"
        if history.is_file():
            lines = history.read_text(encoding="utf-8").splitlines()
            vae.history_ = [json.loads(line) for line in lines]
        return vae

    @property
    def model(self) -> Model:
        """The network."""
        if self._model is None:
            raise UserError("the model is not trained yet; call fit or from_pretrained first")
        return self._model

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokeniser."""
        if self._tokenizer is None:
            raise UserError("the model is not trained yet; call fit or from_pretrained first")
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    def to(self, device: str) -> TextVAE:
        """Move the network, e.g. to ``"cuda"``; returns the same object."""
        self.model.to(find_device(device))
        return self

    # --- training -------------------------------------------------------------------------

    def fit(
        self,
        train: Data,
        *,
        validation: Data | None = None,
        out: str | Path | None = None,
        seed: int = 0,
        device: str = "auto",
        resume: bool = False,
        progress: bool = True,
        say: Callable[[str], None] | None = None,
    ) -> TextVAE:
        """Train on a file or a list of sentences.

        Parameters
        ----------
        train : path, hub data set name or sequence of str
            ``.txt`` (a sentence a line), ``.csv``, ``.jsonl``, ``.parquet``.
        validation : likewise, optional
            Decides which epoch is best; without it, 5 % of the training sentences, at most
            2,000, are held out at random (the same ones for the same text).
        out : path, optional
            Run folder, which must not exist yet unless ``resume``. Without it nothing is kept
            on disk.
        seed : int
            Of the initialisation, the order of sentences and all noise.
        device : str
            ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        resume : bool
            Go on with the run in ``out``.
        progress : bool
            Show a progress bar where stderr is a terminal.
        say : callable, optional
            Gets one line for each thing worth knowing about the data.

        Raises
        ------
        UserError
            Bad data or settings; nothing has been written.
        RunError
            A failure while training; what was written can be resumed.
        Interrupted
            SIGINT or SIGTERM, after a checkpoint.
        """
        from uncollapse.runs import train_run

        if out is None and resume:
            raise UserError("resume needs the folder of the run: out")
        folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="uncollapse-"))
        try:
            self._model, self._tokenizer, self.history_ = train_run(
                self.recipe,
                train,
                validation,
                folder,
                seed=seed,
                device=device,
                resume=resume,
                progress=progress,
                say=say,
            )
            self._run = folder if out is not None else None
        finally:
            if out is None:
                shutil.rmtree(folder, ignore_errors=True)
        return self

    # --- representations ------------------------------------------------------------------

    def posterior(self, texts: Data, *, batch_size: int = 128) -> Distribution:
        """q(z|x) of every sentence, ``(N, D)`` on the CPU, in the order of ``texts``.

        Raises
        ------
        UserError
            For a model without a latent, or an empty sentence.
        """
        self._require_latent()
        corpus = corpus_of(texts, self.tokenizer, self.recipe.data, keep_rows=True)
        parts, index = [], []
        with torch.no_grad():
            for batch in sequential_batches(corpus, batch_size):
                posterior = self.model.posterior(batch.to(self.device))
                assert posterior is not None
                parts.append(posterior.map(Tensor.cpu))
                index.append(batch.index)
        return join(parts)[torch.cat(index).argsort()]

    def encode(self, texts: Data, *, batch_size: int = 128) -> np.ndarray:
        """Posterior means of sentences, ``(N, D)``."""
        return self.posterior(texts, batch_size=batch_size).mean.detach().numpy()

    def decode(
        self,
        z: np.ndarray,
        *,
        method: Method = "greedy",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_length: int = 100,
        seed: int | None = None,
    ) -> list[str]:
        """Write a sentence for every row of ``z`` ``(N, D)``.

        Under a prior on the sphere, for the point of the sphere nearest to it.

        Parameters
        ----------
        z : ndarray
            Latents.
        method : {"greedy", "sample"}
            Most probable words, or draws (with ``temperature``, and ``top_p`` for a nucleus).
        max_length : int
            Words after which a sentence is cut.
        seed : int, optional
            Of the draws.
        """
        self._require_latent()
        latents = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        if latents.dim() != 2 or latents.shape[1] != self.model.latent_dim:
            wanted = f"(N, {self.model.latent_dim})"
            raise UserError(f"z must have shape {wanted}, not {tuple(latents.shape)}")
        latents = self.model.in_support(latents)
        return self._write(latents, len(latents), method, temperature, top_p, max_length, seed)

    def reconstruct(self, texts: Data, **how: Any) -> list[str]:
        """Encode and decode: what is left of a sentence in z. Options as in `decode`."""
        return self.decode(self.encode(texts), **how)

    def interpolate(self, a: str, b: str, steps: int = 7, **how: Any) -> list[str]:
        """Sentences on the straight line between two posterior means, ends included.

        Options as in `decode`.
        """
        if steps < 2:
            raise UserError(f"steps must be at least 2, not {steps}")
        start, end = self.encode([a, b])
        share = np.linspace(0, 1, steps)[:, None]
        return self.decode((1 - share) * start + share * end, **how)

    def sample(
        self,
        n: int,
        *,
        method: Method = "sample",
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_length: int = 100,
        seed: int | None = None,
    ) -> list[str]:
        """Write ``n`` sentences from the prior. Options as in `decode`."""
        if n < 1:
            raise UserError(f"the number of samples must be at least 1, not {n}")
        generator = _generator(seed)
        z = self.model.sample_prior(n, generator)
        return self._write(z, n, method, temperature, top_p, max_length, generator)

    # --- measurement ----------------------------------------------------------------------

    def evaluate(
        self,
        data: Data,
        metrics: Sequence[str] | None = None,
        *,
        train: Data | None = None,
        label_column: str | None = None,
        samples: int = 500,
        generated: int = 10_000,
        seed: int = 0,
        batch_size: int = 32,
    ) -> dict[str, Metric]:
        """Measure the model on sentences that it has not seen.

        Parameters
        ----------
        data : path, hub data set name or sequence of str
            The sentences.
        metrics : sequence of str, optional
            Names of figures, or of groups: ``standard`` (if nothing is named), ``generation``,
            ``representation``, ``supervised``, ``geometry``.
        train : likewise as ``data``, optional
            Training sentences, for the probes of generation and representation.
        label_column : str, optional
            Where the labels are, for the probes of representation; that of the recipe if not
            given.
        samples : int
            Importance samples S of the likelihood.
        generated : int
            Sentences that the generation probes write.
        seed : int
            Of the samples; figures depend on it and on nothing else.
        batch_size : int
            Does not change the figures.

        Raises
        ------
        UserError
            For an unknown name, or data that a figure needs and that is missing.
        """
        config = self.recipe.data
        if label_column is not None:
            config = config.model_copy(update={"label_column": label_column})
        return probe(
            self.model,
            self.tokenizer,
            corpus_of(data, self.tokenizer, config),
            train=None if train is None else corpus_of(train, self.tokenizer, config),
            metrics=metrics,
            samples=samples,
            generated=generated,
            seed=seed,
            batch_size=batch_size,
        )

    def diagnose(self, data: Data) -> Verdict:
        """Is the latent alive? With evidence, and advice where it is not."""
        found = self.evaluate(data, ["kl", "mi", "active_units"])
        kl, mi, active = (found[name].value for name in ("kl", "mi", "active_units"))
        if active is None and self.model.latent_dim:
            raise UserError("a verdict needs at least two sentences")
        return verdict(kl, mi, active, self.model.latent_dim)

    # --- keeping --------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> Path:
        """Save all that `from_pretrained` needs, and a model card, into a new folder."""
        folder = Path(folder)
        facts: Mapping[str, Any] = {}
        figures: dict[str, Any] = {}
        if self._run is not None:
            facts = saving.read_config(self._run)["run"]
            figures = json.loads((self._run / "metrics.json").read_text(encoding="utf-8"))
        saving.start_run(folder, self.recipe, self.tokenizer, facts)
        card = model_card(self.recipe, facts, figures)
        saving.finish_run(folder, self.model, figures, card)
        return folder

    # --- inside ---------------------------------------------------------------------------

    def _require_latent(self) -> None:
        if self.model.latent_dim == 0:
            raise UserError(f"{self.recipe.name} is a language model: it has no latent variable")

    def _write(
        self,
        z: torch.Tensor | None,
        rows: int,
        method: Method,
        temperature: float,
        top_p: float,
        max_length: int,
        seed: int | torch.Generator | None,
    ) -> list[str]:
        tokens = generate(
            self.model.decoder,
            None if z is None else z.to(self.device),
            rows=rows,
            method=method,
            temperature=temperature,
            top_p=top_p,
            max_length=max_length,
            generator=_generator(seed),
        )
        return [self.tokenizer.decode(row) for row in tokens]


def _generator(seed: int | torch.Generator | None) -> torch.Generator:
    if isinstance(seed, torch.Generator):
        return seed
    generator = torch.Generator()
    if seed is None:
        generator.seed()
        return generator
    return generator.manual_seed(check_seed(seed))
