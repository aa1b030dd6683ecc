"""Which runs a table needs: one task a system, corpus and seed, shared by all who ask for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uncollapse.errors import UserError
from uncollapse.evaluation.suite import PROBES
from uncollapse.jobs.job import Job
from uncollapse.recipes import load_recipe
from uncollapse.reproduction import scaled_down as small
from uncollapse.reproduction.inputs import Corpus, Preset, folder_name
from uncollapse.reproduction.published import Published, Row

if TYPE_CHECKING:
    from uncollapse.config import Recipe
    from uncollapse.reproduction.records import Record

PAPER_SAMPLES = 500
PAPER_GENERATED = {"sentences": 40_000, "dialogues": 10_000_000}  # all contexts of the test set


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


def runs_of(
    published: Published, editions: dict[str, str], preset: str, records: Sequence[Record]
) -> dict[tuple[str, str], list[Record]]:
    """The records behind each row and corpus of a table.

    Parameters
    ----------
    published : Published
    editions : dict of str to str
        The edition that stands behind each corpus of the table.
    preset : str
    records : sequence of Record
        Any; those of other systems, editions and presets are passed by.
    """
    by_key: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.preset == preset:
            by_key.setdefault((record.edition, record.system), []).append(record)
    found = {}
    for name, edition in editions.items():
        for row in published.rows:
            if row.recipe is None:
                continue
            system = system_name(row.recipe, row.keep)
            source = editions.get(row.trained_on or name, row.trained_on)
            if source != edition:
                system = f"{system},trained_on={source}"
            own = sorted(by_key.get((edition, system), []), key=lambda record: record.seed)
            if own:
                found[row.label, name] = own
    return found


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
