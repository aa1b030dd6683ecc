"""Ranges around the layers of a model in training, for the profiler to see."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from profile_events import LAYER
from torch import nn
from torch.autograd.profiler import record_function

from uncollapse.attribute_forcing import AttributeForcing, CodesInContext, codes_in_context
from uncollapse.data.batches import Batch, BucketedBatches
from uncollapse.decoders.token_loss import token_nll
from uncollapse.decoders.vocabulary import VocabularyRows
from uncollapse.latents.inference import Inference
from uncollapse.latents.latent import Latent
from uncollapse.model import Model
from uncollapse.training.adversarial import adversarial_terms
from uncollapse.training.critic import Critic
from uncollapse.training.module import TrainingModule

OUTSIDE, STEP, BACKWARD = "outside the step", "of the step", "of the backward pass"


@contextmanager
def marks(model: Model) -> Iterator[None]:
    """Let every layer open a range when it runs, for as long as this lasts."""
    with ExitStack() as stack:
        for owner, name, layer in _places(model):
            stack.enter_context(_replaced(owner, name, _marked(getattr(owner, name), layer)))
        stack.enter_context(_replaced(BucketedBatches, "epoch", _marked_epoch))
        yield


def _places(model: Model) -> Iterator[tuple[Any, str, str]]:
    """Whose method opens a range, and that of which layer."""
    yield model, "_reconstruction", "latents"  # draws; the rest of it has layers of its own
    yield model, "_refine", "refinement"
    yield model.decoder, "log_prob", "softmax"
    yield model.decoder, "states", "decoder"
    if model.encoder is not None:
        yield model.encoder, "forward", "encoder"
    if model.context is not None:
        yield model.context, "forward", "contexts"
    if model.bag_of_words is not None:
        yield model.bag_of_words, "forward", "bag of words"
    for part in model.modules():
        if isinstance(part, nn.Embedding) and len(part.weight) == len(model.decoder.output.weight):
            yield part, "forward", "word vectors"
            if hasattr(part, "types"):
                yield part, "types", "word vectors"
    yield Latent, "infer", "latents"
    yield Latent, "variables", "latents"
    yield Latent, "penalty", "divergence"
    yield Latent, "kl", "divergence"
    yield Inference, "draw", "latents"
    yield Inference, "mixture_kl", "divergence"
    yield CodesInContext, "policy_loss", "policy"
    yield AttributeForcing, "__call__", "attribute forcing"
    yield VocabularyRows, "draw", "softmax"
    yield Critic, "learn", "critic"
    yield BucketedBatches, "random_batch", "data"
    yield TrainingModule, "transfer_batch_to_device", "data"
    yield TrainingModule, "training_step", STEP
    yield TrainingModule, "manual_backward", BACKWARD
    yield TrainingModule, "_clipping", "clipping"
    functions = (
        (token_nll, "softmax"),
        (codes_in_context, "latents"),
        (adversarial_terms, "rewards"),
    )
    for function, layer in functions:
        name = function.__name__
        for module in [part for key, part in sys.modules.items() if key.startswith("uncollapse")]:
            if getattr(module, name, None) is function:
                yield module, name, layer


def _marked(function: Callable[..., Any], layer: str) -> Callable[..., Any]:
    @wraps(function)
    def marked(*arguments: Any, **options: Any) -> Any:
        with record_function(LAYER + layer):
            return function(*arguments, **options)

    return marked


_epoch = BucketedBatches.epoch


def _marked_epoch(batches: BucketedBatches, epoch: int, start: int = 0) -> Iterator[Batch]:
    following = _epoch(batches, epoch, start)
    marked = _marked(lambda: next(following, None), "data")
    while (batch := marked()) is not None:
        yield batch


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
