"""Every mixture and discrete system at a size that two cores can do, measured alike.

    python benchmarks/mixtures.py grammar --runs runs/grammar
    python benchmarks/mixtures.py ptb --corpora FOLDER --runs runs/ptb
    python benchmarks/mixtures.py dailydialog --corpora FOLDER --runs runs/dailydialog
    python benchmarks/mixtures.py smd --corpora FOLDER --runs runs/smd

All get the same sentences, widths, optimiser, batches and epochs, and one posterior sample a
sentence in training. Finished runs are kept, interrupted ones resumed. The figures go to
``benchmarks/results/mixtures-CORPUS.json``.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol import Cut, environment, inputs_of, reproduce, write_results

from uncollapse import TextVAE
from uncollapse.data.grammar import write_grammar
from uncollapse.evaluation.generation import generation_probes
from uncollapse.loading import corpus_of
from uncollapse.recipes import load_recipe

BASELINES = ("gru-lm", "gru-vae")
DISCRETE = ("discrete-autoencoder", "discrete-vae", "di-vae")
SEMI = ("semi-vae", "semi-vae-mi")
MIXTURES = ("gm-vae", "gm-vae-mi", "dgm-vae", "dgm-vae-mi", "gamma-mixture-vae", "dbm-vae")
ABLATIONS = ("gm-vae-free-bits", "gm-vae-beta")
SUPERVISED = ("supervised-dvae", "cm-vae", "dcm-vae")
UNSUPERVISED = (*BASELINES, *DISCRETE, *SEMI, *MIXTURES)
TALK = ("gru-vae", "di-vae", "gm-vae", "gm-vae-mi", "dgm-vae", "dgm-vae-mi")
CHOSEN = ("gru-vae", "di-vae", "semi-vae-mi", *MIXTURES)

WIDTH = 128
GREEDY = ("reverse_ppl", "word_kl", "distinct_2")
GENERATION = ("reverse_ppl", "reverse_ppl_real", "word_kl")


@dataclass(frozen=True)
class Corpus:
    """What is run on a corpus.

    Attributes
    ----------
    recipes : tuple of str
    cuts : tuple of Cut
        Training, validation and test sentences.
    settings : str
        Of which corpus, in the recipes; PTB's are the recipes' own.
    label_columns : tuple of str
        The first is that of the comparison.
    metrics : tuple of str
        Beside the standard ones, and those of clusters where there are labels.
    epochs, annealed : int
        In all, and until the KL weight is 1.
    """

    recipes: tuple[str, ...]
    cuts: tuple[Cut, ...]
    settings: str = ""
    label_columns: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    epochs: int = 6
    annealed: int = 3


CORPORA = {
    # with the groups of the papers' dialogues: 125 joint codes for the grammar's ten intents
    "grammar": Corpus((*CHOSEN, *ABLATIONS), (), settings="@dailydialog", label_columns=("label",)),
    "ptb": Corpus(
        (*UNSUPERVISED, *ABLATIONS),
        (Cut("ptb/train.txt", 5_000), Cut("ptb/valid.txt", 500), Cut("ptb/test.txt", 500)),
        metrics=GENERATION,
    ),
    # twice the sentences and epochs, and a slower start, for the systems that it matters to
    "ptb-longer": Corpus(
        ("gru-vae", "gm-vae", "dgm-vae", "dgm-vae-mi"),
        (Cut("ptb/train.txt", 10_000), Cut("ptb/valid.txt", 500), Cut("ptb/test.txt", 500)),
        metrics=GENERATION,
        epochs=12,
        annealed=8,
    ),
    "dailydialog": Corpus(
        (*UNSUPERVISED, *SUPERVISED),
        (
            Cut("dailydialog/train.jsonl", 8_000),
            Cut("dailydialog/validation.jsonl", 1_000),
            Cut("dailydialog/test.jsonl", 1_000),
        ),
        settings="@dailydialog",
        label_columns=("act", "emotion"),
        metrics=GENERATION,
    ),
    "smd": Corpus(
        TALK,
        (
            Cut("smd/train.jsonl", 6_000),
            Cut("smd/validation.jsonl", 1_000),
            Cut("smd/test.jsonl", 1_000),
        ),
        settings="@smd",
        label_columns=("domain",),
    ),
}
GRAMMAR = {"train": 8_000, "validation": 500, "test": 1_000}


def reduced(name: str, corpus: str) -> list[str]:
    """What differs from a recipe."""
    recipe = load_recipe(name)
    changes = [f"decoder.{part}_dim={WIDTH}" for part in ("embedding", "hidden")]
    changes += [f"decoder.{key}=null" for key in ("init_scale", "embedding_init_scale")]
    changes += [f"decoder.{part}_dropout=0.2" for part in ("embedding", "output")]
    if recipe.encoder is not None:
        changes += [f"encoder.{part}_dim={WIDTH}" for part in ("embedding", "hidden")]
        changes += [f"encoder.{key}=null" for key in ("init_scale", "embedding_init_scale")]
    if name in BASELINES:  # to be like the others in everything but the latent
        changes += ["decoder.tied_softmax=true", "decoder.initial_state=linear"]
        if recipe.encoder is not None:
            changes += ["encoder.bidirectional=true", "latents.z.dim=40"]
        if corpus in ("dailydialog", "smd"):
            changes += ["data.tokenizer=words"]
    changes += [
        "data.max_length=38",
        "training.optimizer=adam",
        "training.learning_rate=0.002",
        "training.batch_size=32",
        "training.clip_norm=5.0",
        "training.plateau=null",
        f"training.max_epochs={CORPORA[corpus].epochs}",
        "objective.samples=1",
    ]
    if recipe.training.select_on != "reconstruction":
        changes.append("training.select_on=elbo")
    if recipe.objective.weight.kind != "constant":
        changes.append(f"objective.weight={{kind: linear, epochs: {CORPORA[corpus].annealed}}}")
    if corpus == "grammar":  # its text is tokenised
        changes.append("data.tokenizer=whitespace")
    return changes


def write_sentences(runs: Path) -> tuple[Path, ...]:
    """The grammar's sentences, beside the runs."""
    folder = runs.with_name(f"{runs.name}-inputs")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for seed, (split, count) in enumerate(GRAMMAR.items(), 1):
        files.append(folder / f"{split}.jsonl")
        if not files[-1].exists():
            write_grammar(files[-1], count, seed)
    return tuple(files)


def agreement(runs: Path, test: Path, columns: tuple[str, ...], names: list[str]) -> dict[str, Any]:
    """How far codes agree with labels of further columns, by column and system."""
    found: dict[str, Any] = {}
    for column in columns:
        for name in names:
            folder = runs / name / "seed-0"
            if not (folder / "summary.json").is_file():
                continue
            figures = TextVAE.from_pretrained(folder).evaluate(
                str(test), ["clusters"], label_column=column
            )
            values = {key: [m.value, m.standard_error] for key, m in figures.items()}
            found.setdefault(column, {})[name] = values
    return found


def greedy(
    runs: Path, files: tuple[Path, ...], names: list[str], generated: int
) -> dict[str, dict[str, Any]]:
    """The probes of generation on the most probable words, as the papers decode; by system."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        folder = runs / name / "seed-0"
        if not (folder / "summary.json").is_file():
            continue
        vae = TextVAE.from_pretrained(folder)
        if vae.model.latent_dim == 0:
            continue  # it would always write the same sentence
        train, test = (corpus_of(str(f), vae.tokenizer, vae.recipe.data) for f in files[::2])
        figures = generation_probes(
            vae.model,
            vae.tokenizer,
            train,
            test,
            metrics=GREEDY,
            samples=generated,
            greedy=True,
        )
        found[name] = {key: metric.to_dict() for key, metric in figures.items()}
    return found


def main() -> None:
    """Train and measure whatever is not measured yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus", choices=CORPORA)
    parser.add_argument("--corpora", type=Path, default=os.environ.get("UNCOLLAPSE_CORPORA"))
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--recipes", nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--generated", type=int, default=2_000)
    given = parser.parse_args()
    corpus = CORPORA[given.corpus]
    names = given.recipes or corpus.recipes
    if unknown := [name for name in names if name not in corpus.recipes]:
        parser.error(f"{unknown[0]} is not run on {given.corpus}: {', '.join(corpus.recipes)}")
    if corpus.cuts:
        files = inputs_of(corpus.cuts, given.corpora, given.runs, parser.error)
        described = {cut.file: f"first {cut.sentences:,} sentences" for cut in corpus.cuts}
    else:
        files = write_sentences(given.runs)
        described = {split: f"{count:,} sentences" for split, count in GRAMMAR.items()}
    changes = {name: reduced(name, given.corpus) for name in names}
    found = reproduce(
        {at(name, corpus): changes[name] for name in names},
        files,
        given.runs,
        metrics=("standard", *corpus.metrics, *(["clusters"] if corpus.label_columns else [])),
        label_column=corpus.label_columns[0] if corpus.label_columns else None,
        seeds=given.seeds,
        samples=given.samples,
        generated=given.generated,
    )
    further = agreement(given.runs, files[2], corpus.label_columns[1:], list(names))
    protocol = {
        "command": f"python benchmarks/mixtures.py {given.corpus} --runs runs/{given.corpus}",
        "environment": environment(),
        "files": described,
        "epochs": corpus.epochs,
        "changes": changes,
    }
    decoded = greedy(given.runs, files, list(names), given.generated) if corpus.metrics else {}
    results = {**protocol, **found, "agreement": further, "greedy": decoded}
    write_results(f"mixtures-{given.corpus}", results)


def at(name: str, corpus: Corpus) -> str:
    """The recipe with the papers' settings for a corpus, where it has any."""
    return name if name in BASELINES else f"{name}{corpus.settings}"


if __name__ == "__main__":
    main()
