"""Every decoder in small, with its options, for tests of what holds for all of them."""

from __future__ import annotations

import pytest
import torch
from helpers import VOCABULARY
from pydantic import TypeAdapter
from torch import Tensor

from uncollapse.config import DecoderConfig
from uncollapse.decoders import KINDS, Decoder, build_decoder

DIM = 3
WIDE = {"embedding_dim": 8, "tied_softmax": True}
VARIANTS: dict[str, dict[str, object]] = {
    "lstm": {"kind": "lstm"},
    "gru": {"kind": "gru"},
    "rnn": {"kind": "rnn"},
    "lstm skip": {"kind": "lstm", "skip": True},
    "gru skip alone": {"kind": "gru", "skip": True, "initial_state": None, "every_input": False},
    "rnn skip tied": {"kind": "rnn", "skip": True, **WIDE},
    "cnn": {"kind": "dilated-cnn"},
    "cnn wide": {"kind": "dilated-cnn", "dilations": [3, 1], "filter_width": 4},
    "cnn narrow tied": {"kind": "dilated-cnn", "dilations": [1], "filter_width": 2, **WIDE},
    "transformer": {"kind": "transformer", "heads": 2},
    "transformer prefix": {"kind": "transformer", "every_input": False, "layers": 1},
    "transformer inputs": {"kind": "transformer", "prefix": False, "layers": 3, "heads": 1},
    "transformer odd tied": {"kind": "transformer", "hidden_dim": 7, "embedding_dim": 7}
    | {"tied_softmax": True, "heads": 3},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def make_decoder(
    variant: str, *, dim: int = DIM, words: int = VOCABULARY, **options: object
) -> Decoder:
    """Weights far from zero, so that everything that can matter does."""
    torch.manual_seed(0)
    sizes = {"embedding_dim": 5, "hidden_dim": 8, "init_scale": 0.7, "embedding_init_scale": 1.5}
    values = sizes | VARIANTS.get(variant, {"kind": variant}) | options
    return build_decoder(TypeAdapter(DecoderConfig).validate_python(values), words, dim).eval()


def by_stepping(decoder: Decoder, z: Tensor | None, inputs: Tensor) -> Tensor:
    """What `Decoder.states` computes, one word at a time, ``(B, T, H)``."""
    state = decoder.start(z, len(inputs))
    features = []
    for words in inputs.unbind(1):
        state = decoder.step(decoder.project_words(words), state)
        features.append(state.features)
    return torch.stack(features, 1)
