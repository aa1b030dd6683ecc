"""What the speed benchmark measures: sizes, the recipe of each family, data and weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SEED = 1
DIALOGUE = "dialogue"  # the one family that is trained on another corpus


@dataclass(frozen=True)
class Settings:
    """How much is measured; the default sizes are the common configuration of the literature."""

    folder: Path  # for corpora, weights and run folders
    corpus: str = ""
    embedding_dim: int = 512
    hidden_dim: int = 256
    latent_dim: int = 32
    rounds: int = 5
    scale: float = 1.0  # of the work of a round
    samples: int = 500
    rows: int = 256  # sentences written at once
    warm_up: int = 120  # batches of training before likelihood and sampling
    settle: float = 8.0  # seconds of training before the first round: shapes get their kernels
    max_length: int = 100
    own_sizes: bool = True  # whether recipes that have sizes of their own keep them
    kernels: bool = False  # whether there are native kernels to compare

    def amount(self, full: int) -> int:
        """Work of a round, of so much in a whole run."""
        return max(1, round(full * self.scale))


def recipe(settings: Settings, family: str, precision: str = "f32") -> Any:
    """The recipe of a family at the benchmark's sizes; ``f32`` or ``bf16`` training."""
    from uncollapse.recipes import load_recipe

    changes = [f"{key}={_text(value)}" for key, value in _changes(settings)[family].items()]
    name = {"twr": "twr-vae", "mixture": "dgm-vae", "vmf": "vmf-vae", DIALOGUE: "cvae"}
    name |= {"transformer": "transformer-vae", "cnn": "cnn-vae"}
    return load_recipe(name.get(family, "vae"), [*changes, f"training.precision={precision}"])


def _changes(settings: Settings) -> dict[str, dict[str, Any]]:
    """What each family's recipe differs in from the packaged one."""
    sizes = {
        f"{side}.{key}": value
        for side in ("encoder", "decoder")
        for key, value in (
            ("embedding_dim", settings.embedding_dim),
            ("hidden_dim", settings.hidden_dim),
        )
    }
    batch = {"training.batch_size": 32}
    latent = {"latents.z.dim": settings.latent_dim}
    starts = {
        f"{side}.{key}": None
        for side in ("encoder", "decoder")
        for key in ("init_scale", "embedding_init_scale")
    }
    adam = {"training.optimizer": "adam", "training.learning_rate": 0.001}
    weight = {"objective.weight": {"kind": "constant"}}
    common = sizes | batch | latent | adam | weight
    gru = {"encoder.kind": "gru", "decoder.kind": "gru"}
    mixture = {
        "latents.z.groups": settings.latent_dim // 2,
        "latents.z.dim": 2,
        "decoder.tied_softmax": False,
    }
    dialogue: dict[str, Any] = batch | weight
    if not settings.own_sizes:
        dialogue |= sizes | latent | {"condition.hidden_dim": settings.hidden_dim}
        dialogue |= {"latents.z.prior.hidden_dim": settings.hidden_dim}
    return {
        "lstm": common | starts,
        "gru": common | starts | gru,
        "bidirectional": common | starts | {"encoder.bidirectional": True},
        "twr": sizes | batch | latent,
        "vmf": common | starts,
        "mixture": sizes | batch | weight | mixture,
        DIALOGUE: dialogue,
        "transformer": common,
        "cnn": common | starts,
    }


def _text(value: Any) -> str:
    """A value as an override says it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(own)}" for key, own in value.items()) + "}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


# --- data -----------------------------------------------------------------------------------


def prepare(settings: Settings, *, few: bool) -> str:
    """Write sentences and their tokenizer, or ``few`` for a test; tell of which corpus."""
    from uncollapse.data.grammar import assistant_grammar
    from uncollapse.data.tokenizer import Tokenizer

    source = corpus_folder("ptb")
    if source is not None and not few:
        name = "Penn Treebank"
        texts = {
            part: (source / f"{file}.txt").read_text("utf-8")
            for part, file in (("train", "train"), ("validation", "valid"), ("test", "test"))
        }
    else:
        name = "grammar"
        size, held_out = (300, 50) if few else (44_000, 2_000)
        sentences = [sample.text for sample in assistant_grammar().sample(size, SEED)]
        texts = {
            "validation": "\n".join(sentences[:held_out]),
            "test": "\n".join(sentences[held_out : 2 * held_out]),
            "train": "\n".join(sentences[2 * held_out :]),
        }
    for part, text in texts.items():
        (settings.folder / f"{part}.txt").write_text(text, "utf-8")
    tokenizer = Tokenizer.train(texts["train"].splitlines(), "whitespace", None)
    tokenizer.save(settings.folder / "tokenizer.json")
    for part in texts:
        corpus(settings, "lstm", part)
    return f"{name}, {len(tokenizer):,} types"


def prepare_dialogues(settings: Settings, *, few: bool) -> bool:
    """Encode the dialogues, if they are there."""
    from uncollapse.loading import learn_tokenizer

    source = corpus_folder("dailydialog")
    if source is None:
        return False
    for part in ("train", "test"):
        lines = (source / f"{part}.jsonl").read_text("utf-8").splitlines(keepends=True)
        kept = "".join(lines[:100] if few else lines)
        (settings.folder / f"{DIALOGUE}-{part}.jsonl").write_text(kept, "utf-8")
    config = recipe(settings, DIALOGUE).data
    tokenizer = learn_tokenizer(settings.folder / f"{DIALOGUE}-train.jsonl", config)
    tokenizer.save(settings.folder / f"{DIALOGUE}-tokenizer.json")
    for part in ("train", "test"):
        corpus(settings, DIALOGUE, part)
    return True


def corpus_folder(name: str) -> Path | None:
    """Where a real corpus is; None if it is not here."""
    folder = Path(os.environ.get("UNCOLLAPSE_CORPORA") or "nowhere") / name
    return folder if folder.is_dir() else None


@cache
def tokenizer(settings: Settings, family: str) -> Any:
    """That of a family's corpus."""
    from uncollapse.data.tokenizer import Tokenizer

    prefix = f"{DIALOGUE}-" if family == DIALOGUE else ""
    return Tokenizer.load(settings.folder / f"{prefix}tokenizer.json")


def corpus(settings: Settings, family: str, part: str) -> Any:
    """``train`` or ``test`` sentences; memory-mapped, once the parent has encoded them."""
    from uncollapse.data.corpus import Corpus

    cache_folder = settings.folder / "cache"
    if family != DIALOGUE:
        path = settings.folder / f"{part}.txt"
        return Corpus.build(path, tokenizer(settings, family), cache=cache_folder)
    config = recipe(settings, DIALOGUE).data
    return Corpus.build(
        settings.folder / f"{DIALOGUE}-{part}.jsonl",
        tokenizer(settings, family),
        max_length=config.max_length,
        context_turns=config.context_turns,
        cache=cache_folder,
    )


def sentences(whole: Any, first: int, count: int) -> Any:
    """Sentences ``first`` to ``first + count`` of a corpus, as a corpus."""
    import numpy as np

    return whole.select(np.arange(first, min(first + count, len(whole))))


# --- models ---------------------------------------------------------------------------------


def weights(settings: Settings, family: str) -> Path:
    """Where the weights of a family's warmed-up model are kept."""
    return settings.folder / f"{family}.pt"


def build_model(settings: Settings, family: str, *, trained: bool = False) -> Any:
    """The package's model."""
    import torch

    from uncollapse.model import Model

    torch.manual_seed(SEED)
    model = Model(recipe(settings, family), len(tokenizer(settings, family)))
    if trained:
        model.load_state_dict(torch.load(weights(settings, family)))
    return model


def build_plain(settings: Settings, family: str, *, trained: bool = False) -> Any:
    """The plain one, with the same weights."""
    from plain.dialogue import PlainCVAE
    from plain.families import PlainMixture, PlainSphere, PlainTWR
    from plain.prefixes import PlainCNN, PlainTransformer
    from plain.vae import PlainVAE

    kinds: dict[str, Any] = {
        "twr": PlainTWR,
        "vmf": PlainSphere,
        "mixture": PlainMixture,
        DIALOGUE: PlainCVAE,
        "transformer": PlainTransformer,
        "cnn": PlainCNN,
    }
    plain = kinds.get(family, PlainVAE)(recipe(settings, family), len(tokenizer(settings, family)))
    plain.load_from(build_model(settings, family, trained=trained))
    return plain
