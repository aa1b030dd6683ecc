"""Perplexities of language models of ours: trained on samples, and trained on real text.

A generator that leaves out what the language has, or writes what it has not, teaches a
language model badly (Zhao et al. 2018, "Adversarially Regularized Autoencoders").
"""

from __future__ import annotations

import hashlib
import signal
import tempfile
from collections.abc import Set

import numpy as np
import torch

from uncollapse.config import Recipe
from uncollapse.data.corpus import Corpus
from uncollapse.errors import UserError
from uncollapse.evaluation.likelihood import score_sentences
from uncollapse.evaluation.likelihood_figures import perplexity
from uncollapse.evaluation.metric import Metric, no_figure
from uncollapse.evaluation.passes import Progress, check_seed
from uncollapse.model import Model
from uncollapse.objectives import Objective
from uncollapse.recipes import load_recipe

PERPLEXITIES = ("reverse_ppl", "reverse_ppl_real", "forward_ppl")
# small enough for minutes on a CPU at 10,000 sentences and as many words
SETTINGS = (
    "decoder.embedding_dim=128",
    "decoder.hidden_dim=128",
    "decoder.tied_softmax=true",
    "decoder.init_scale=null",
    "decoder.embedding_init_scale=null",
    "decoder.embedding_dropout=0.2",
    "decoder.output_dropout=0.2",
    "training.optimizer=adam",
    "training.learning_rate=0.006",
    "training.max_epochs=5",
    "training.plateau=null",
    "training.precision=f32",
)
HELD_OUT = 0.05  # of what a language model learns from: decides which epoch is best
MOST_HELD_OUT = 2_000
SCORING_BATCH = 256
KEPT = 4  # language models of real text that a process remembers

_trained_on_real: dict[tuple[str, ...], Model] = {}

REVERSE = (
    "exp(Σ NLL / Σ (words + 1)) of the test sentences under a language model trained on {what}, "
    "over the vocabulary of the model"
)
FORWARD = (
    "exp(Σ NLL / Σ (words + 1)) of the samples under a language model trained on real sentences; "
    "low is not good by itself: a few generic sentences score well"
)
ERROR = "the error is that over sentences, without the noise of training the language model"


def probe_language_model() -> Recipe:
    """The language model of the probes: a small LSTM, the ``lstm-lm`` recipe otherwise."""
    return load_recipe("lstm-lm", SETTINGS)


def perplexities(
    samples: Corpus,
    train: Corpus,
    test: Corpus,
    vocabulary_size: int,
    *,
    wanted: Set[str] = frozenset(PERPLEXITIES),
    recipe: Recipe | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """Reverse perplexity, its floor on real text, and forward perplexity.

    Both language models learn from n sentences, the lesser of the numbers of samples and of
    training sentences: the first n samples, and n training sentences drawn at random. The one
    of real text is kept for the next call in this process with the same sentences.

    Parameters
    ----------
    samples : Corpus
        What a model wrote; sentences may be empty.
    train, test : Corpus
        Real sentences in the same vocabulary.
    vocabulary_size : int
        V.
    wanted : set of str
        Which of ``PERPLEXITIES``.
    recipe : Recipe, optional
        The language model; `probe_language_model` if not given.
    seed : int
        Of initialisation, training and the choice of training sentences.
    device : torch.device or str

    Returns
    -------
    dict of str to Metric
        ``reverse_ppl`` is a dash where all samples are empty.

    Raises
    ------
    UserError
        For a recipe with a latent, a negative seed, or fewer than two sentences to train on.
    """
    recipe = recipe or probe_language_model()
    if recipe.latents:
        raise UserError(f"the probes need a language model, and {recipe.name} has a latent")
    check_seed(seed)
    place = torch.device(device)
    count = min(len(samples), len(train))
    learner = _learner(recipe, count)
    real: Model | None = None
    if wanted & {"reverse_ppl_real", "forward_ppl"}:
        rows = np.random.default_rng(seed).choice(len(train), count, replace=False)
        chosen = train.select(np.sort(rows))
        real = _train_on_real(chosen, vocabulary_size, recipe, seed, place, progress)
    result: dict[str, Metric] = {}
    if "reverse_ppl" in wanted:
        definition = REVERSE.format(what="samples")
        if samples.lengths.any():
            what = "language model of the samples"
            own = samples.head(count)
            model = _train(own, vocabulary_size, recipe, seed, place, what, progress)
            result["reverse_ppl"] = _perplexity(model, test, learner, definition)
        else:
            reason = "none: every sample is an empty sentence"
            result["reverse_ppl"] = no_figure("per token", reason, definition)
    if "reverse_ppl_real" in wanted and real is not None:
        definition = REVERSE.format(what="as many real sentences: the floor of reverse_ppl")
        result["reverse_ppl_real"] = _perplexity(real, test, learner, definition)
    if "forward_ppl" in wanted and real is not None:
        result["forward_ppl"] = _perplexity(real, samples, learner, FORWARD)
    return result


def _learner(recipe: Recipe, sentences: int) -> str:
    """The language model in words, with all that its perplexity depends on."""
    decoder, training = recipe.decoder, recipe.training
    held_out = max(1, min(MOST_HELD_OUT, round(HELD_OUT * sentences)))
    epochs = f"{training.max_epochs} epoch{'' if training.max_epochs == 1 else 's'}"
    return (
        f"{decoder.kind} language model, embedding {decoder.embedding_dim}, "
        f"hidden {decoder.hidden_dim}, {training.optimizer} {training.learning_rate:g}, "
        f"best of {epochs} on {held_out:,} held out of its {sentences:,} "
        f"sentences; {ERROR}"
    )


def _perplexity(model: Model, corpus: Corpus, estimator: str, definition: str) -> Metric:
    scores = score_sentences(model, corpus, batch_size=SCORING_BATCH)
    assert scores.log_likelihood is not None  # a language model has a likelihood
    return perplexity(-scores.log_likelihood, scores.tokens, estimator, definition, 0)


def _train_on_real(
    corpus: Corpus,
    vocabulary_size: int,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    progress: Progress | None,
) -> Model:
    """`_train`, but once for the same sentences: many models are compared on one corpus."""
    content = hashlib.sha256(corpus.offsets.tobytes())
    content.update(corpus.tokens.astype(np.int64).tobytes())
    settings = (vocabulary_size, seed, device, recipe.model_dump_json())
    key = (content.hexdigest(), *map(str, settings))
    model = _trained_on_real.get(key)
    if model is None:
        what = "language model of real text"
        model = _train(corpus, vocabulary_size, recipe, seed, device, what, progress)
        if len(_trained_on_real) == KEPT:
            del _trained_on_real[next(iter(_trained_on_real))]  # the oldest
        _trained_on_real[key] = model
    return model


def _train(
    corpus: Corpus,
    vocabulary_size: int,
    recipe: Recipe,
    seed: int,
    device: torch.device,
    what: str,
    progress: Progress | None,
) -> Model:
    # Lightning takes a second to import, and most figures do without it
    from lightning.pytorch.callbacks import LambdaCallback

    from uncollapse.training.fit import fit
    from uncollapse.training.signals import Interrupted
    from uncollapse.training.state import capture_random, restore_random

    epochs = recipe.training.max_epochs
    told = LambdaCallback(
        on_train_epoch_end=lambda trainer, _: (
            progress(what, trainer.current_epoch + 1, epochs) if progress is not None else None
        )
    )
    learning, validating = corpus.hold_out(HELD_OUT, MOST_HELD_OUT)
    before = capture_random(device)
    with torch.random.fork_rng(), tempfile.TemporaryDirectory(prefix="uncollapse-") as folder:
        torch.manual_seed(seed)
        model = Model(recipe, vocabulary_size)
        try:
            fit(
                model,
                Objective(recipe.objective),
                recipe,
                learning,
                validating,
                folder,
                seed=seed,
                device=str(device),
                show_progress=False,
                callbacks=[told],
                alone=True,
            )
        except Interrupted as stop:
            # nothing is kept that could be resumed: the signal means what it always does
            if stop.exit_code == 128 + signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(stop.exit_code) from None
        finally:
            restore_random(before, device)
    return model.to(device)
