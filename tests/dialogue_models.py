"""Small random models of dialogue, one of each kind, that know the words of `TURNS`."""

from __future__ import annotations

from typing import Any

import torch

from uncollapse import TextVAE
from uncollapse.config import parse_recipe
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.model import Model

TURNS = [
    "hello there",
    "how are you ?",
    "fine thanks and you",
    "where do we go now ?",
    "home i think",
]
WHOLE = {"turns": [{"speaker": "AB"[i % 2], "text": text} for i, text in enumerate(TURNS)]}
DIALOGUES: list[Any] = [
    TURNS[:2],
    [],
    [{"speaker": "A", "text": "hello"}, {"speaker": "B", "text": "fine thanks"}],
    {"turns": ["where do we go ?"], "speaker": "X"},
    TURNS,
]
READER = {"kind": "gru", "hidden_dim": 8, "embedding_dim": 6}
GRU = {"kind": "gru", "hidden_dim": 9, "embedding_dim": 6, "initial_state": "hidden"}
LATENT = {"z": {"dim": 4, "prior": {"kind": "conditional-gaussian"}}}
MIXTURE = {
    "z": {
        "dim": 2,
        "groups": 2,
        "prior": {"kind": "mixture", "components": 4, "policy": {"hidden_dim": 8}},
        "divergence": {"kind": "dispersed", "beta": 0.5},
    }
}
CODES = {
    "c": {
        "dim": 3,
        "posterior": {"kind": "categorical", "categories": 4},
        "prior": {"kind": "uniform-categorical", "policy": {"hidden_dim": 8}},
    }
}
BASE = {
    "name": "small-dialogue",
    "summary": "s",
    "source": "s",
    "data": {"context_turns": 3, "tokenizer": "words"},
    "encoder": READER,
    "condition": {"hidden_dim": 10},
    "latents": LATENT,
    "decoder": GRU,
}
CHANGES: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "attention": {"decoder": GRU | {"attention": True}},
    "transformer": {"decoder": {"kind": "transformer", "hidden_dim": 8, "heads": 2}},
    "mixture": {"latents": MIXTURE},
    "codes": {"latents": CODES},
    "turns": {
        "latents": {
            "z": {
                "dim": 4,
                "readout": "turns",
                "prior": {"kind": "conditional-gaussian"},
                "divergence": {"kind": "timestep-mean"},
            }
        }
    },
    "no latent": {
        "latents": {},
        "encoder": None,
        "condition": {"hidden_dim": 10, "encoder": READER},
    },
    "no context": {
        "data": {"tokenizer": "words"},
        "condition": None,
        "latents": {"z": {"dim": 4}},
    },
}
CONDITIONAL = [kind for kind in CHANGES if kind != "no context"]
WITH_LATENT = [kind for kind in CONDITIONAL if kind != "no latent"]


def dialogue_model(kind: str, **changes: Any) -> TextVAE:
    """A model with weights far from their small start, in evaluation mode."""
    vae = TextVAE(parse_recipe({**BASE, **CHANGES[kind], **changes}))
    vae._tokenizer = Tokenizer.train(TURNS, "words", None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae._model = Model(vae.recipe, len(vae.tokenizer))
        with torch.no_grad():
            for parameter in vae.model.parameters():
                parameter.uniform_(-1, 1)
    vae.model.eval()
    return vae
