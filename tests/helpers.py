"""Tiny batches and models that the tests of the core build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from uncollapse.config import DISCRETE, DispersedConfig, LatentConfig, Recipe
from uncollapse.data.batches import Batch
from uncollapse.data.contexts import ContextBatch
from uncollapse.data.tokenizer import BOS, EOS, PAD
from uncollapse.model import Model
from uncollapse.recipes import load_recipe

VOCABULARY = 30
SENTENCES = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 5], [4], [14, 5, 6, 29, 28]]

# the axis tables' defaults are for corpora; these are for milliseconds
SMALL_ENCODER = ("encoder.embedding_dim=6", "encoder.hidden_dim=7")
SMALL_DECODER = ("decoder.embedding_dim=5", "decoder.hidden_dim=8")


def make_batch(
    sentences: Sequence[Sequence[int]],
    width: int = 0,
    total: int = 0,
    labels: Mapping[str, Sequence[int]] | None = None,
    contexts: Sequence[Sequence[Sequence[int]]] | None = None,
) -> Batch:
    """Pad ``sentences`` (word ids) to the longest, or to ``width`` tokens if that is more.

    ``labels`` has the classes of each column, -1 where missing; ``contexts`` the turns before
    each sentence, of which every other one is of the speaker of the sentence.
    """
    lengths = torch.tensor([len(sentence) + 2 for sentence in sentences])
    tokens = torch.full((len(sentences), max(width, int(lengths.max()))), PAD)
    for row, sentence in enumerate(sentences):
        tokens[row, : len(sentence) + 2] = torch.tensor([BOS, *sentence, EOS])
    index = torch.arange(len(sentences))
    classes = {column: torch.tensor(ids) for column, ids in (labels or {}).items()}
    before = None if contexts is None else make_contexts(contexts)
    return Batch(tokens, lengths, index, classes, total or len(sentences), before)


def make_contexts(contexts: Sequence[Sequence[Sequence[int]]]) -> ContextBatch:
    """Pad contexts, lists of turns, oldest first."""
    turns = [turn for context in contexts for turn in context]
    longest = max((len(context) for context in contexts), default=0)
    rows = torch.full((len(contexts), longest), -1)
    same = torch.full((len(contexts), longest), -1)
    first = 0
    for row, context in enumerate(contexts):
        count = len(context)
        rows[row, :count] = torch.arange(first, first + count)
        same[row, :count] = torch.arange(count).flip(0) % 2
        first += count
    if not turns:
        return ContextBatch(torch.zeros(0, 2, dtype=torch.int64), rows.new_zeros(0), rows, same)
    padded = make_batch(turns)
    return ContextBatch(padded.tokens, padded.lengths, rows, same)


def random_sentences(count: int, longest: int = 9, seed: int = 0) -> list[list[int]]:
    """Sentences of 1 to ``longest`` random words."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(4, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def small_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """A packaged recipe at toy sizes; ``overrides`` come last."""
    recipe = load_recipe(name)
    small = list(SMALL_DECODER)
    if recipe.decoder.tied_softmax:
        small += ["decoder.embedding_dim=8"]
    if recipe.latents:
        small += SMALL_ENCODER
    if recipe.condition is not None:
        small += ["condition.hidden_dim=7"]
        if recipe.condition.encoder is not None:
            small += [f"condition.{change}" for change in SMALL_ENCODER]
    if recipe.discriminator is not None:
        small += [f"discriminator.{change}" for change in SMALL_ENCODER]
    if recipe.objective.bag_of_words is not None:
        small += ["objective.bag_of_words.hidden_dim=6"]
    for key, latent in recipe.latents.items():
        small += [f"latents.{key}.{size}" for size in _small_latent(latent)]
    if recipe.objective.samples > 1:
        small += ["objective.samples=1"]
    return load_recipe(name, [*small, *overrides])


def _small_latent(latent: LatentConfig) -> list[str]:
    groups = min(latent.groups, 2)
    dim = min(latent.dim, 3) if latent.posterior.kind in DISCRETE else 4 // groups
    small = [f"dim={dim}", f"groups={groups}"]
    if latent.prior.kind == "mixture":
        small += ["prior.components=3"]
    if latent.prior.kind in ("conditional-gaussian", "conditional-implicit"):
        small += ["prior.hidden_dim=5"]
    if getattr(latent.prior, "policy", None) is not None:
        small += ["prior.policy.hidden_dim=5"]
    if isinstance(latent.divergence, DispersedConfig) and latent.divergence.floor is not None:
        small += ["divergence.floor={z: 1, component: 0.01}"]  # above, nothing would pull
    if latent.conditional and getattr(latent.divergence, "floor", None) is not None:
        small += ["divergence.floor.nats=0.01"]  # above, nothing would reach the prior
    if getattr(latent.posterior, "generator", None) is not None:
        small += ["posterior.generator.hidden_dim=5"]
    if latent.divergence.kind in ("dual", "wasserstein"):
        # the weights of these tests make the exponential of a wide network astronomical
        small += ["divergence.hidden_dim=4"]
    return small


def small_model(name: str, overrides: Iterable[str] = (), seed: int = 0) -> Model:
    """A model of `small_recipe` in evaluation mode, with weights far from their small start.

    Papers start from U(±0.01): there every state is next to zero, and tests see nothing.
    """
    torch.manual_seed(seed)
    model = Model(small_recipe(name, overrides), VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.7, 0.7)
        for part in model.modules():
            if isinstance(part, torch.nn.Embedding):
                part.weight.uniform_(-2, 2)[PAD].zero_()
    return model.eval()
