"""Which runs a table needs: one task a system, corpus and seed, shared by all who ask for it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from uncollapse.corpora import FoundCorpus, find
from uncollapse.data.grammar import write_grammar
from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation.suite import PROBES
from uncollapse.jobs.job import Job
from uncollapse.recipes import load_recipe
from uncollapse.reproduction import scaled_down as small
from uncollapse.reproduction.published import Published, Row

if TYPE_CHECKING:
    from uncollapse.config import Recipe
    from uncollapse.reproduction.records import Record

Preset = Literal["small", "paper"]
PRESETS = ("small", "paper")
SPLITS = ("train", "validation", "test")
# settings of the recipes (NAME@…) by corpus; those of PTB are the recipes' own
SETTINGS = {
    "yahoo": "yahoo",
    "yelp15": "yelp",
    "short-yelp": "short-yelp",
    "dailydialog": "dailydialog",
    "smd": "smd",
    "switchboard": "swda",
    "grammar": "dailydialog",  # 125 joint codes for its ten intents
}
PAPER_SAMPLES = 500
PAPER_GENERATED = {"sentences": 40_000, "dialogues": 10_000_000}  # all contexts of the test set
GRAMMAR = "grammar"


@dataclass(frozen=True)
class Corpus:
    """A corpus as a reproduction reads it.

    Attributes
    ----------
    name : str
        As the tables call it.
    edition : str
        What is here; with ``:dialogues`` where the corpus is read as dialogues.
    files : dict
        ``train``, ``validation``, ``test``; empty until `prepare` has cut them.
    sources : dict
        The whole files of the corpus.
    data : str
        How much of it is read, in words.
    overrides : tuple of str
        What the corpus asks of every recipe.
    label_columns : tuple of str
    comparable : bool
        Whether published figures are of the same texts.
    reason : str
        Why not.
    settings : str
        Of the recipes: ``NAME@settings``.
    digest : str
        Of the files; empty until `prepare` has read them.
    """

    name: str
    edition: str
    files: dict[str, str]
    sources: dict[str, str]
    data: str
    overrides: tuple[str, ...]
    label_columns: tuple[str, ...]
    comparable: bool
    reason: str
    settings: str
    digest: str = ""


@dataclass(frozen=True)
class Task(Job):
    """One run: what is trained, on what, and what is measured of it. Everything is plain data.

    Attributes
    ----------
    preset, edition, system, recipe, changes, seed
        As in a `Record`.
    folder : str
        Of the record.
    run : str
        Of the trained model; the same folder unless the model was trained on another corpus.
    train, validation : str
        Files that the model learns from.
    files : dict
        What is measured: ``train`` (for probes that compare or learn) and ``test``.
    label_column : str or None
        Where figures need one that do not name theirs.
    metrics : tuple of str
        Figures or groups; ``NAME@COLUMN`` for another label column, ``NAME@greedy`` for
        generation by the most probable words.
    samples, generated : int
    data : str
        How much of which files, in words.
    device : str
    digest : str
        Of all these files.
    """

    preset: str
    edition: str
    system: str
    recipe: str
    changes: tuple[str, ...]
    seed: int
    folder: str
    run: str
    train: str
    validation: str
    files: dict[str, str]
    label_column: str | None
    metrics: tuple[str, ...]
    samples: int
    generated: int
    data: str
    device: str = "auto"
    digest: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """Which record it is of: edition, system, seed."""
        return self.edition, self.system, self.seed

    def describe(self) -> str:
        """E.g. ``ptb, bn-vae, seed 0``."""
        return f"{self.edition}, {self.system}, seed {self.seed}"

    @property
    def log(self) -> Path:
        """Its log, below the folder of the logs."""
        return Path(folder_name(self.edition), f"{self.system}-seed-{self.seed}.log")

    def finished(self) -> Record | None:
        """Its record, if nothing is left to do; see `worker.finished`."""
        from uncollapse.reproduction.worker import finished

        return finished(self)

    def do(self) -> Record:
        """Do whatever of it is not done yet; see `worker.run_task`."""
        from uncollapse.reproduction import worker

        return worker.run_task(self)


def open_corpus(name: str, preset: Preset, folder: Path | None, *, dialogues: bool) -> Corpus:
    """Find a corpus of the tables; nothing is written.

    Parameters
    ----------
    name : str
    preset : {'small', 'paper'}
    folder : Path or None
        Where the corpora are.
    dialogues : bool
        Whether dialogues are read as such, not as lone utterances.

    Raises
    ------
    UserError
        Naming the file that is lacking, and where it comes from.
    """
    overrides: list[str] = []
    cuts = small.DIALOGUES if dialogues else small.SENTENCES
    if name == GRAMMAR:
        cut = cuts[GRAMMAR]
        return Corpus(
            GRAMMAR, GRAMMAR, {}, {}, f"{cut.describe()} drawn from the embedded grammar",
            ("data.tokenizer=whitespace",), ("label",), True, "", SETTINGS[GRAMMAR],
        )  # fmt: skip
    found: FoundCorpus = find(name, folder)
    base = _base(found.edition)
    if not found.tokenised:
        overrides.append("data.tokenizer=words")
    elif not dialogues:
        overrides.append("data.tokenizer=whitespace")
    data = "all of the corpus"
    if preset == "small":
        cut = cuts[base]
        data = "first " + cut.describe()
        if dialogues:
            data = cut.describe("dialogues, evenly spread")
        if cut.max_length is not None:
            overrides.append(f"data.max_length={cut.max_length}")
    edition = f"{found.edition}:dialogues" if dialogues else found.edition
    return Corpus(
        name,
        edition,
        {},
        {split: str(path) for split, path in found.files.items()},
        data,
        tuple(overrides),
        found.label_columns,
        found.comparable,
        found.reason,
        SETTINGS.get(base, ""),
    )


def prepare(corpus: Corpus, preset: Preset, out: Path) -> Corpus:
    """The corpus with the files that are read, cut once into ``out/inputs``."""
    if preset == "paper" and corpus.name != GRAMMAR:
        return _sealed(replace(corpus, files=dict(corpus.sources)))
    edition, _, dialogues = corpus.edition.partition(":")
    cut = (small.DIALOGUES if dialogues else small.SENTENCES)[_base(edition)]
    files = {}
    for number, split in enumerate(SPLITS, 1):
        count = getattr(cut, split)
        if corpus.name == GRAMMAR:
            target = out / "inputs" / GRAMMAR / f"{count}-{split}.jsonl"
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                write_grammar(target, count, number)
        else:
            source = Path(corpus.sources[split])
            folder = out / "inputs" / folder_name(corpus.edition)
            target = folder / f"{count}-{source.name}"
            small.write_cut(source, count, target, whole_dialogues=bool(dialogues))
        files[split] = str(target)
    return _sealed(replace(corpus, files=files))


def _sealed(corpus: Corpus) -> Corpus:
    """With the digest of its files: another content under the same name is another corpus."""
    found = hashlib.sha256()
    for split in SPLITS:
        with Path(corpus.files[split]).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return replace(corpus, digest=found.hexdigest()[:16])


def tasks_of(
    published: Published,
    corpora: dict[str, Corpus],
    preset: Preset,
    out: Path,
    seeds: Sequence[int],
    device: str = "auto",
) -> list[Task]:
    """The runs behind a table or figure, rows first, so that early seeds give a whole table.

    Parameters
    ----------
    published : Published
    corpora : dict of str to Corpus
        By the name that the table uses, prepared; those that are not here are left out.
    preset : {'small', 'paper'}
    out : Path
        The folder that all reproductions share.
    seeds : sequence of int
    device : str
    """
    found: dict[tuple[str, str, int], Task] = {}
    for seed in seeds:
        for name in published.corpora:
            for row in published.rows:
                if row.recipe is None or name not in corpora:
                    continue
                if row.values and name not in row.values and published.kind == "table":
                    continue  # the paper has no such cell
                source = corpora.get(row.trained_on or name)
                if source is None:
                    continue
                task = make_task(
                    row, corpora[name], source, preset, out, seed, wanted(published, row), device,
                    published.label_column.get(name),
                )  # fmt: skip
                found.setdefault(task.key, task)
    return list(found.values())


def wanted(published: Published, row: Row) -> tuple[str, ...]:
    """The figures that a table asks of a row: always the standard ones too."""
    names = [name for name, column in published.columns.items() if not column.cost]
    names += [*row.figures.values(), *published.measured]
    for claim in published.claims:
        names += [cell.column for cell in (claim.left, claim.right) if cell.column]
    probes = {figure for group in PROBES.values() for figure in group}
    probed = {name for name in names if name in PROBES or name.partition("@")[0] in probes}
    return ("standard", *sorted(probed))


def make_task(
    row: Row,
    corpus: Corpus,
    source: Corpus,
    preset: Preset,
    out: Path,
    seed: int,
    metrics: Iterable[str],
    device: str = "auto",
    label_column: str | None = None,
) -> Task:
    """The run of a row on a corpus; ``source`` is what the model learns from."""
    assert row.recipe is not None
    system = system_name(row.recipe, row.keep)
    recipe = at(row.recipe, source.settings)
    changes = _changes(recipe, row, source, preset)
    dialogues = corpus.edition.endswith(":dialogues")
    runs = out / "runs" / preset
    run = runs / folder_name(source.edition) / system / f"seed-{seed}"
    folder = run
    if source.edition != corpus.edition:
        system = f"{system},trained_on={source.edition}"
        folder = runs / folder_name(corpus.edition) / system / f"seed-{seed}"
    unit = "dialogues" if dialogues else "sentences"
    columns = corpus.label_columns
    return Task(
        preset=preset,
        edition=corpus.edition,
        system=system,
        recipe=recipe,
        changes=(*changes, f"name={system}"),
        seed=seed,
        folder=str(folder),
        run=str(run),
        train=source.files["train"],
        validation=source.files["validation"],
        files={split: corpus.files[split] for split in ("train", "test")},
        label_column=label_column or (columns[0] if columns else None),
        metrics=tuple(metrics),
        samples=small.SAMPLES if preset == "small" else PAPER_SAMPLES,
        generated=(small.GENERATED if preset == "small" else PAPER_GENERATED)[unit],
        data=corpus.data,
        device=device,
        digest="/".join(dict.fromkeys((source.digest, corpus.digest))),
    )


def _changes(recipe: str, row: Row, source: Corpus, preset: Preset) -> list[str]:
    own = [*row.set, *row.keep]
    changes = small.scaled_down(recipe, own) if preset == "small" else own
    resolved: Recipe = load_recipe(recipe, changes)
    for override in source.overrides:
        key, _, value = override.partition("=")
        if key == "data.tokenizer" and resolved.data.tokenizer == value:
            continue
        longest = resolved.data.max_length
        if key == "data.max_length" and longest is not None and longest <= int(value):
            continue  # the recipe cuts earlier
        changes.append(override)
    return [*changes, *row.keep] if preset == "small" else changes


def at(recipe: str, settings: str) -> str:
    """The recipe with the papers' settings for a corpus, where it has any."""
    if not settings:
        return recipe
    try:
        load_recipe(f"{recipe}@{settings}")
    except UserError:
        return recipe
    return f"{recipe}@{settings}"


def system_name(recipe: str, keep: Iterable[str]) -> str:
    """What a row is called in folders and results: the recipe and what the row keeps changed."""
    parts = [recipe]
    for change in keep:
        path, _, value = change.partition("=")
        plain = re.sub(r"\bkind: ?", "", value)
        plain = re.sub(r"[^A-Za-z0-9.+]+", "-", plain).strip("-")
        parts.append(f"{path.rpartition('.')[2]}={plain}")
    return ",".join(parts)


def folder_name(edition: str) -> str:
    """The folder of an edition: a colon is not welcome everywhere."""
    return edition.replace(":", "-")


def _base(edition: str) -> str:
    for name in sorted(SETTINGS | {"ptb": ""}, key=len, reverse=True):
        if edition == name or edition.startswith(f"{name}-"):
            return name
    raise UserError(f"no protocol for the edition {edition}")


def check_preset(preset: str) -> Preset:
    """The preset of a name.

    Raises
    ------
    UserError
        If there is none.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    return preset  # type: ignore[return-value]
