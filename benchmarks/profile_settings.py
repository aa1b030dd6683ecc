"""The recipes that are profiled, one or more of every family, at one size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uncollapse.config import Recipe
from uncollapse.data.corpus import Corpus
from uncollapse.data.grammar import assistant_grammar
from uncollapse.loading import learn_tokenizer
from uncollapse.recipes import load_recipe
from uncollapse.runs import label_columns

SEED = 1
SENTENCES, DIALOGUES = "ptb", "dailydialog"
NAMES = {SENTENCES: "Penn Treebank", DIALOGUES: "DailyDialog", None: "grammar"}


@dataclass(frozen=True)
class Profiled:
    """How a recipe is profiled.

    Attributes
    ----------
    family : str
        The page of docs/families that describes it.
    steps : int
        That are timed, and that are profiled.
    changes : tuple of str
        To the recipe, beside sizes.
    corpus : str
    """

    family: str
    steps: int = 10
    changes: tuple[str, ...] = ()
    corpus: str = SENTENCES


RECIPES = {
    "lstm-lm": Profiled("plain"),
    "vae": Profiled("plain"),
    "cnn-vae": Profiled("plain"),
    "transformer-vae": Profiled("plain"),
    "free-bits-vae": Profiled("schedules"),
    "bn-vae": Profiled("constrained"),
    "vmf-vae": Profiled("constrained"),
    "max-pool-vae": Profiled("pooling"),
    # a step is as many updates of the encoder, and one of the decoder
    "lagging-vae": Profiled("encoder-first", 1, ("strategy.most_updates=9",)),
    "sa-vae": Profiled("encoder-first", 1),
    "ivae": Profiled("implicit"),
    "twr-vae": Profiled("twr"),
    "dgm-vae": Profiled("mixtures", 2, ("latents.z.groups=16",)),
    "dcm-vae": Profiled("mixtures", corpus=DIALOGUES),
    "di-vae": Profiled("codes"),
    "cvae-bow": Profiled("cvae", 5, corpus=DIALOGUES),
    "bn-cvae": Profiled("cvae", 5, corpus=DIALOGUES),
    "dgm-vae-dialogue": Profiled("two-stage", 5, corpus=DIALOGUES),
    "dialog-wae": Profiled("adversarial", 5, corpus=DIALOGUES),
    # the reward counts from the beginning
    "seqgan": Profiled("adversarial", 1, ("objective.adversarial.warmup_batches=0",), DIALOGUES),
}


@dataclass(frozen=True)
class Sizes:
    """Those of all recipes; by default the common configuration of the literature."""

    embedding_dim: int = 512
    hidden_dim: int = 256
    latent_dim: int = 32
    batch_size: int = 32
    steps: float = 1.0  # times those of the recipe
    vocabulary_size: int = 10_004
    grammar: bool = False  # whatever corpora there are


def recipe_of(name: str, sizes: Sizes, precision: str = "f32") -> Recipe:
    """A recipe at these sizes, with a weight of the divergence that is 1 from the start."""
    packaged = load_recipe(name)
    changes = {
        "training.batch_size": sizes.batch_size,
        "training.precision": precision,
        "data.vocabulary_size": sizes.vocabulary_size,
        "objective.weight": "{kind: constant}",
        "decoder.tied_softmax": "false",
    }
    for side in ("encoder", "decoder"):
        if getattr(packaged, side) is not None:
            changes[f"{side}.embedding_dim"] = sizes.embedding_dim
            changes[f"{side}.hidden_dim"] = sizes.hidden_dim
    condition = packaged.condition
    if condition is not None:
        changes["condition.hidden_dim"] = sizes.hidden_dim
        if condition.encoder is not None:
            changes["condition.encoder.embedding_dim"] = sizes.embedding_dim
            changes["condition.encoder.hidden_dim"] = sizes.hidden_dim
    if "z" in packaged.latents and packaged.latents["z"].groups == 1 and name != "dcm-vae":
        changes["latents.z.dim"] = sizes.latent_dim
    own = [f"{key}={value}" for key, value in changes.items()]
    return load_recipe(name, [*own, *RECIPES[name].changes])


class Data:
    """The corpora, encoded once for all recipes that read them alike.

    Parameters
    ----------
    folder : Path
        For what is encoded.
    sizes : Sizes
    """

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self._tokenizers: dict[Any, Any] = {}
        self._corpora: dict[Any, Corpus] = {}

    def source(self, name: str) -> tuple[str, Path] | None:
        """What a recipe's corpus is called, and where it is; None if there is none."""
        whole = os.environ.get("UNCOLLAPSE_CORPORA")
        ending = {SENTENCES: "txt", DIALOGUES: "jsonl"}[RECIPES[name].corpus]
        path = Path(whole or "nowhere") / RECIPES[name].corpus / f"train.{ending}"
        if path.exists() and not self.sizes.grammar:
            return NAMES[RECIPES[name].corpus], path
        if RECIPES[name].corpus != SENTENCES:
            return None
        path = self.folder / "grammar.txt"
        if not path.exists():
            sentences = assistant_grammar().sample(2_000 if self.sizes.grammar else 42_000, SEED)
            path.write_text("\n".join(sentence.text for sentence in sentences), "utf-8")
        return NAMES[None], path

    def read(self, name: str, recipe: Recipe) -> tuple[Corpus, int]:
        """Training sentences of a recipe, and how many types of words they have."""
        found = self.source(name)
        assert found is not None
        _, path = found
        config = recipe.data
        kind = (path, config.tokenizer, config.vocabulary_size)
        if kind not in self._tokenizers:
            self._tokenizers[kind] = learn_tokenizer(path, config)
        tokenizer = self._tokenizers[kind]
        columns = label_columns(recipe)
        key = (*kind, config.max_length, config.context_turns, *columns)
        if key not in self._corpora:
            self._corpora[key] = Corpus.build(
                path,
                tokenizer,
                label_columns=dict.fromkeys(columns),
                max_length=config.max_length,
                context_turns=config.context_turns,
                cache=self.folder / "cache",
            )
        return self._corpora[key], len(tokenizer)
