"""`TextVAE`: the object that people hold. Text in, numpy arrays or text out."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uncollapse import saving
from uncollapse.config import Recipe
from uncollapse.errors import UserError
from uncollapse.evaluation.suite import probe
from uncollapse.interpreting import Interpreter
from uncollapse.loading import Data
from uncollapse.model_card import model_card
from uncollapse.names import kept_names, write_names
from uncollapse.recipes import load_recipe, with_latent_dim
from uncollapse.responding import Responder
from uncollapse.training.diagnosis import diagnose
from uncollapse.training.verdict import Verdict

if TYPE_CHECKING:
    from uncollapse.evaluation.metric import Metric
    from uncollapse.evaluation.passes import Precision


class TextVAE(Responder, Interpreter):
    """A variational autoencoder of text: train, measure, encode, write, respond, interpret.

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
    classes : dict of str to list of str
        Of every column of labels that the model was told of, the classes.
    names : dict of str to dict of str to str
        ``{variable: {code: name}}``: what `name_components` called clusters.
    history_ : list of dict
        One row an epoch, after `fit`.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.history_: list[dict[str, Any]] = []
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
            If there is no model, or its names.yaml has names that do not fit it.
        RunError
            If a file is damaged.
        """
        folder = Path(folder)
        model, recipe, tokenizer = saving.read_model(folder)
        vae = cls(recipe)
        vae._model, vae._tokenizer, vae._run = model, tokenizer, folder
        vae._classes = saving.read_classes(folder)
        vae._names = kept_names(folder, model.variable_sizes())
        vae.history_ = saving.read_history(folder)
        return vae

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
        """Train on a file or a list of sentences or dialogues.

        Parameters
        ----------
        train : path, hub data set name or sequence of str or of mappings
            ``.txt`` (a sentence a line), ``.csv``, ``.jsonl``, ``.parquet``; in Python, where
            labels supervise, rows such as ``{"text": "hello", "act": "greeting"}``. A dialogue
            is a row ``{"turns": [{"speaker": "A", "text": "hello"}, …]}`` or, of one response
            alone, ``{"context": ["hello", …], "response": "hi"}``. A recipe with a condition is
            told of what was said before; one without takes every turn as a sentence.
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
            trained = train_run(
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
            self._model, self._tokenizer = trained.model, trained.tokenizer
            self._classes, self.history_ = trained.classes, trained.history
            self._names = {}  # clusters of another model are others
            self._run = folder if out is not None else None
        finally:
            if out is None:
                shutil.rmtree(folder, ignore_errors=True)
        return self

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
        vectors: str | Path | None = None,
        greedy: bool = False,
        seed: int = 0,
        batch_size: int = 32,
        precision: Precision = "f32",
    ) -> dict[str, Metric]:
        """Measure the model on sentences that it has not seen.

        Parameters
        ----------
        data : path, hub data set name or sequence of str
            The sentences.
        metrics : sequence of str, optional
            Names of figures, or of groups: ``standard`` (if nothing is named), ``generation``,
            ``representation``, ``supervised``, ``geometry``, ``clusters``, ``dialogue``.
        train : likewise as ``data``, optional
            Training sentences, for the probes of generation, representation and dialogue.
        label_column : str, optional
            Where the labels are, for the probes of representation, clusters and dialogue; that
            of the recipe if not given.
        samples : int
            Importance samples S of the likelihood.
        generated : int
            Sentences that the generation probes write, and responses those of dialogue: ten to
            each of a tenth as many contexts.
        vectors : path, optional
            Word vectors for the probes of dialogue, in the format of GloVe or word2vec; without
            it they are trained on ``train``.
        greedy : bool
            Whether the sentences of the generation probes are of the most probable words, not of
            drawn ones.
        seed : int
            Of the samples; figures depend on it and on nothing else.
        batch_size : int
            Does not change the figures.
        precision : {"f32", "bf16"}
            Of the decoder in the likelihoods among the standard figures; all else is f32. bf16
            is about twice as fast where the processor has it, errs by some hundredths of a nat
            a sentence, and is named beside every figure: for a first look, not for publication.

        Raises
        ------
        UserError
            For an unknown name, or data that a figure needs and that is missing.
        """
        return probe(
            self.model,
            self.tokenizer,
            self._corpus(data, label_column),
            train=None if train is None else self._corpus(train, label_column),
            metrics=metrics,
            samples=samples,
            generated=generated,
            vectors=vectors,
            greedy=greedy,
            seed=seed,
            batch_size=batch_size,
            precision=precision,
        )

    def diagnose(self, data: Data) -> Verdict:
        """Are latents alive, and codes used? With evidence, and advice where they are not."""
        return diagnose(self.model, self._corpus(data, None))

    # --- keeping --------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> Path:
        """Save all that `from_pretrained` needs, and a model card, into a new folder.

        Names of clusters go into its ``names.yaml``.
        """
        folder = Path(folder)
        facts: Mapping[str, Any] = {}
        figures: dict[str, Any] = {}
        if self._run is not None:
            facts = saving.read_config(self._run)["run"]
            figures = json.loads((self._run / "metrics.json").read_text(encoding="utf-8"))
        saving.start_run(folder, self.recipe, self.tokenizer, facts, self._classes)
        if self._names:
            write_names(folder, self._names)
        card = model_card(self.recipe, facts, figures)
        saving.finish_run(folder, self.model, figures, card)
        return folder
