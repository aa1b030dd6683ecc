"""What one may want of a system, and which systems and figures answer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from uncollapse.config import Recipe
from uncollapse.recipes import load_recipe, recipe_names
from uncollapse.reproduction.published import Row

SENTENCES = ("grammar", "ptb", "yahoo", "yelp15", "short-yelp", "dailydialog", "smd")
DIALOGUES = ("dailydialog", "switchboard", "smd")
CHEAP = 0.02  # share of the best likelihood that a latent may cost


@dataclass(frozen=True)
class Purpose:
    """What somebody wants of a system.

    Attributes
    ----------
    name : str
        As a question is asked.
    figure : str
        What answers it.
    better : {'lower', 'higher'}
    reads : {'sentences', 'dialogues'}
    within : float or None
        Share of the best likelihood on a corpus that it may be behind.
    explanation : str
        What the figure says, and what it does not.
    unlabelled : bool
        Whether systems that learn from labels are left out: the figure asks for the same labels.
    """

    name: str
    figure: str
    better: str
    reads: str
    explanation: str
    within: float | None = None
    unlabelled: bool = False


PURPOSES = (
    Purpose(
        "The best model of the text",
        "nll",
        "lower",
        "sentences",
        "NLL alone. A language model without a latent is hard to beat: a collapsed VAE is one.",
    ),
    Purpose(
        "A latent that knows the sentence, at no loss of likelihood",
        "mi",
        "higher",
        "sentences",
        f"Mutual information of sentence and z, of those whose NLL is within {CHEAP:.0%} of the "
        "best of that corpus.",
        within=CHEAP,
    ),
    Purpose(
        "To get a sentence back, or to change it",
        "bleu",
        "higher",
        "sentences",
        "BLEU of greedy reconstructions. Systems with a poor NLL are not left out.",
    ),
    Purpose(
        "Representations, where labels are few",
        "accuracy_100",
        "higher",
        "sentences",
        "Accuracy of a linear classifier on posterior means, learnt from 100 labels. Systems that "
        "learn from labels themselves are left out.",
        unlabelled=True,
    ),
    Purpose(
        "Clusters that mean something",
        "cluster_ami",
        "higher",
        "sentences",
        "Adjusted mutual information of codes and labels. Systems that learn from labels "
        "themselves are left out.",
        unlabelled=True,
    ),
    Purpose(
        "Sentences like those of the corpus",
        "reverse_ppl",
        "lower",
        "sentences",
        "Perplexity on real sentences of a language model trained on generated ones.",
    ),
    Purpose(
        "Responses as likely as can be",
        "nll",
        "lower",
        "dialogues",
        "NLL of a response given its context. SeqGAN is HRED with two epochs more.",
    ),
    Purpose(
        "Responses that match the real one",
        "bleu_f1_wae",
        "higher",
        "dialogues",
        "Harmonic mean of BLEU precision and recall over ten responses.",
    ),
    Purpose(
        "Responses that differ from one another",
        "distinct_2_inter",
        "higher",
        "dialogues",
        "Different word pairs among ten responses to one context. Nonsense differs too, and "
        "systems without z (HRED, SeqGAN) draw their words, where the others draw z alone.",
    ),
)


def rows_for(dialogues: bool, label_columns: Sequence[str]) -> list[Row]:
    """Every packaged recipe that can be trained on a corpus, as rows without printed figures."""
    rows = []
    for name in recipe_names():
        recipe: Recipe = load_recipe(name)
        if (recipe.condition is not None) != dialogues:
            continue
        wanted = {part.column for part in recipe.objective.supervision}
        if not wanted <= set(label_columns):
            continue  # it learns from labels that are not there
        rows.append(Row(label=name, recipe=name))
    return rows


def figures_for(dialogues: bool, labelled: bool) -> tuple[str, ...]:
    """What is measured on a corpus: whatever a purpose asks for."""
    reads = "dialogues" if dialogues else "sentences"
    names = [purpose.figure for purpose in PURPOSES if purpose.reads == reads]
    standard = {"nll", "mi", "bleu"}
    left_out = standard if labelled else standard | {"accuracy_100", "cluster_ami"}
    return ("standard", *(name for name in names if name not in left_out))
