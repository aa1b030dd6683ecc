"""The papers' tables and figures as data: numbers, recipes, figures and claims fit together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch

from uncollapse.config import Recipe
from uncollapse.errors import UserError
from uncollapse.evaluation.standard import metric_names
from uncollapse.evaluation.suite import PROBES
from uncollapse.model import Model
from uncollapse.recipes import load_recipe, recipe_names
from uncollapse.reproduction.inputs import PRESETS, SETTINGS
from uncollapse.reproduction.published import (
    Cell,
    Published,
    Row,
    load_explanations,
    load_published,
    parse_published,
    published_names,
)
from uncollapse.reproduction.scaled_down import DIALOGUES, SENTENCES, scaled_down
from uncollapse.reproduction.tasks import at, system_name

# fmt: off
NAMES = [
    "bn-table1", "bn-table2", "bn-table3", "bn-table4", "bn-figure1", "bn-figure2", "bn-figure3",
    "dem-table1", "dem-table2", "dem-table3", "dem-table6", "dem-table7",
    "dem-figure3", "dem-figure4", "dem-figure5",
    "pool-table1", "pool-table2", "pool-table3", "pool-table4", "pool-table5",
    "pool-figure2", "pool-figure3",
    "twr-table2", "twr-table3", "twr-table4", "twr-table5", "twr-figure2",
]
COSTS = {
    "seconds", "cpu_seconds", "seconds_to_best", "updates_to_best", "updates", "epochs",
    "parameters", "peak_memory_mb", "ratio_to_vae",
}
# copied from the papers once more, a row a line: table, corpus, row, its numbers (`-`: none)
PRINTED = """
bn-table3 | short-yelp | FB(9) | 79.8 84.4 88.8 91.12 94.7
bn-table4 | switchboard | CVAE (BOW) | 24.49 9.30 8.56 96.89 93.95 83.55 81.13
dem-table1 | ptb | Test set | - 100.0 .14 - - - - -
dem-table1 | ptb | AE | 730.81 10.88 .58 - - - - -
dem-table1 | ptb | VAE | 686.18 3.12 .50 100.85 5.76 - - -
dem-table1 | ptb | DAE | 797.17 3.93 .58 - - - - -
dem-table1 | ptb | DVAE | 744.07 1.56 .55 101.07 - 3.87 - .17
dem-table1 | ptb | DI-VAE | 310.29 4.53 .24 108.90 - 24.78 - 1.14
dem-table1 | ptb | semi-VAE | 494.52 2.71 .43 100.67 4.96 1.96 - .09
dem-table1 | ptb | semi-VAE + Lmi | 260.28 5.08 .20 107.30 .045 24.04 - 1.12
dem-table1 | ptb | GM-VAE | 983.50 2.34 .72 99.44 3.41 0 .001 0
dem-table1 | ptb | GM-VAE + Lmi | 287.07 6.26 .25 103.16 9.13 28.38 13.10 1.30
dem-table1 | ptb | DGM-VAE | 257.68 8.17 .19 104.26 41.48 4.76 787.03 .22
dem-table1 | ptb | DGM-VAE + Lmi | 247.37 8.67 .18 105.73 25.48 19.73 203.34 .91
dem-table2 | dailydialog | DI-VAE | 1.20 3.05 .18 .09
dem-table2 | dailydialog | semi-VAE | .03 4.06 .02 .08
dem-table2 | dailydialog | semi-VAE + Lmi | 1.21 3.69 .21 .14
dem-table2 | dailydialog | GM-VAE | 0 2.03 .08 .02
dem-table2 | dailydialog | GM-VAE + Lmi | 1.41 2.96 .19 .09
dem-table2 | dailydialog | DGM-VAE | .53 7.63 .11 .09
dem-table2 | dailydialog | DGM-VAE + Lmi | 1.32 7.39 .23 .16
dem-table3 | smd | DI-VAE | 7.06 76.17 43.98 60.92
dem-table3 | smd | DGM-VAE + Lmi | 10.16 78.93 48.14 64.87
dem-table6 | dailydialog | DCM-VAE | 48.78 .80 .73 139.16
dem-table7 | ptb | + FB | 101.39 6.59 .19 16.85 5.14 12.52
dem-table7 | ptb | w/ β = 0.1 | 136.08 5.88 .15 14.89 4.11 49.49
dem-table7 | ptb | w/ β = 0.5 | 103.32 5.92 .024 1.57 1.43 21.12
dem-table7 | ptb | w/ β = 0.9 | 100.05 1.78 0 .10 .44 1.52
twr-table2 | yelp15 | SA-VAE | 355.9 39.7 2.8 1.7
twr-table2 | ptb | TWR-VAE | 86.6 40.9 4.1 5.0
twr-table5 | dailydialog | TWR-VAE | .407 .281 .333 .952 .603 .865 .921 .990 .497 .817
pool-table1 | yelp15 | iVAE MI | - 348.7 11.6 11.0 32
pool-table4 | yelp15 | Max | 356.0 356.7
"""
# fmt: on
BACK = {"yelp": "yelp15", "swda": "switchboard"}  # settings of the recipes to the tables' corpora
VOCABULARY = 30
settled = cache(at)
every_table = pytest.mark.parametrize("name", NAMES)


def trained_rows(published: Published) -> Iterator[tuple[Row, str, str]]:
    """Every row on every corpus that it learns from, with its recipe there."""
    for row in published.rows:
        for corpus in dict.fromkeys([row.trained_on or corpus for corpus in published.corpora]):
            if row.recipe is not None:
                yield row, corpus, settled(row.recipe, SETTINGS.get(corpus, ""))


def figures_of(published: Published) -> set[str]:
    """Everything that is measured for a table."""
    cells = [cell for claim in published.claims for cell in (claim.left, claim.right)]
    names = {*published.columns, *published.measured, *(c.column for c in cells if c.column)}
    return names.union(*(row.figures.values() for row in published.rows))


def small(row: Row, recipe: str) -> Recipe:
    """A row's recipe under the small protocol."""
    return _small(recipe, tuple(row.set), tuple(row.keep))


@cache
def _small(recipe: str, own: tuple[str, ...], kept: tuple[str, ...]) -> Recipe:
    return load_recipe(recipe, [*scaled_down(recipe, [*own, *kept]), *kept])


@cache
def _paper(recipe: str, own: tuple[str, ...], kept: tuple[str, ...]) -> Recipe:
    return load_recipe(recipe, [*own, *kept])


def figures_of_model(row: Row, recipe: str) -> frozenset[str]:
    """The figures that a row's model has by itself."""
    return _figures_of_model(small(row, recipe).model_dump_json())


@cache
def _figures_of_model(recipe: str) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(metric_names(Model(Recipe.model_validate_json(recipe), VOCABULARY)))


def is_probe(name: str) -> bool:
    """Whether a probe gives this figure, perhaps of another label column or way of writing."""
    return any(name.partition("@")[0] in group for group in PROBES.values())


def test_every_table_and_figure_is_there() -> None:
    assert published_names() == NAMES


@pytest.mark.parametrize("line", PRINTED.strip().splitlines())
def test_numbers_are_those_of_the_papers(line: str) -> None:
    name, corpus, label, numbers = (part.strip() for part in line.split("|"))
    printed = [None if number == "-" else float(number) for number in numbers.split()]
    assert load_published(name).row(label).values[corpus] == printed


def test_recipes_quote_the_tables() -> None:
    """Two copies of nearly four hundred numbers, made at different times."""
    printed: dict[tuple[str, str, str], set[float]] = {}
    for name in NAMES:
        published = load_published(name)
        for row in published.rows:
            if row.recipe is None or row.keep or row.trained_on:
                continue
            for corpus, values in row.values.items():
                for (column, how), value in zip(published.columns.items(), values, strict=True):
                    if value is not None:
                        figure = row.figures.get(column, column).partition("@")[0]
                        cell = printed.setdefault((row.recipe, corpus, figure), set())
                        cell |= {value, round(value / how.scale, 6)}
    compared = 0
    for recipe in recipe_names():
        for corpus, figures in load_recipe(recipe).published.items():
            for figure, value in figures.items():
                cell = printed.get((recipe, BACK.get(corpus, corpus), figure))
                if cell is not None:  # what is quoted may be that of another row's recipe
                    assert value in cell, f"{recipe}, {corpus}, {figure}: {value}, not {cell}"
                    compared += 1
    assert compared > 350


@every_table
def test_corpora_are_known(name: str) -> None:
    published = load_published(name)
    known = DIALOGUES if published.reads == "dialogues" else SENTENCES
    assert {*published.corpora} <= {*known}
    assert {row.trained_on for row in published.rows} - {None} <= {*known}
    assert {*published.label_column} <= {*published.corpora}


@every_table
def test_figures_exist(name: str) -> None:
    published = load_published(name)
    costs = {column for column, how in published.columns.items() if how.cost}
    assert costs <= COSTS
    models = [figures_of_model(row, recipe) for row, _, recipe in trained_rows(published)]
    known = frozenset().union(*models)
    for figure in figures_of(published) - COSTS:
        plain, at_sign, way = figure.partition("@")
        assert is_probe(plain) or (not at_sign and plain in known), figure
        assert way in ("", "greedy", "act", "emotion")
        assert (way == "greedy") <= (plain in PROBES["generation"])


@every_table
def test_a_row_has_the_figures_that_are_printed_of_it(name: str) -> None:
    published = load_published(name)
    for row, corpus, recipe in trained_rows(published):
        values = row.values.get(corpus, [None] * len(published.columns))
        for column, value in zip(published.columns, values, strict=True):
            figure = row.figures.get(column, column)
            if value is not None and figure not in COSTS and not is_probe(figure):
                assert figure in figures_of_model(row, recipe), (row.label, figure)


@every_table
def test_recipes_load_at_both_sizes(name: str) -> None:
    published = load_published(name)
    for row, _, recipe in trained_rows(published):
        whole = _paper(recipe, tuple(row.set), tuple(row.keep))
        conditional = {part.condition is not None for part in (whole, small(row, recipe))}
        assert conditional == {published.reads == "dialogues"}, row.label


@every_table
def test_what_a_row_sets_gives_way_to_the_small_protocol(name: str) -> None:
    """All but what is looked at during training: else a run could not be shared by its name."""
    for row, _, recipe in trained_rows(load_published(name)):
        if not row.set:
            continue
        assert row.keep, f"{row.label}: shares its name with the plain recipe"
        looks = [part for part in row.set if part.startswith("training.snapshots=")]
        plain = load_recipe(recipe, [*scaled_down(recipe), *looks, *row.keep])
        assert small(row, recipe) == plain, row.label


def test_one_name_is_one_system() -> None:
    found: dict[tuple[str, str], tuple[str, list[str], list[str]]] = {}
    for name in NAMES:
        for row, corpus, recipe in trained_rows(load_published(name)):
            system = system_name(row.recipe or "", row.keep)
            how = (recipe, row.set, row.keep)
            assert found.setdefault((corpus, system), how) == how, (name, row.label)


@every_table
def test_claims_hold_in_the_papers_own_numbers(name: str) -> None:
    published = load_published(name)
    table = published.kind == "table"
    assert 3 <= len(published.claims) <= 8 if table else len(published.claims) <= 8
    assert len({claim.text for claim in published.claims}) == len(published.claims)

    def printed(cell: Cell, corpus: str) -> float | None:
        if cell.row is None or cell.column is None:
            return cell.plus
        if cell.column not in published.columns:
            return None
        value = published.printed(cell.row, corpus, cell.column)
        return None if value is None else cell.times * value + cell.plus

    compared = 0
    for claim in published.claims:
        assert (claim.relation == "~") == (claim.within > 0)
        for corpus in claim.on or published.corpora:
            left, right = printed(claim.left, corpus), printed(claim.right, corpus)
            if left is None or right is None:
                continue
            compared += 1
            holds = {">": left > right, "<": left < right, "~": abs(left - right) <= claim.within}
            assert holds[claim.relation], f"{claim.text}: {left} {claim.relation} {right}"
    assert compared >= 2 or not table


def test_other_estimators_are_said_so() -> None:
    """What is no bound, or has a ceiling of its own, is not held against ours in value."""
    for name in ("twr-table2", "twr-table3"):
        published = load_published(name)
        assert {"nll", "ppl"} <= {*published.measured}
        for row in published.rows:
            pulled = str(row.recipe).startswith("twr-vae")
            assert pulled == ("nll_twr" not in row.figures), row.label
            assert pulled <= ("kl" in row.estimators), row.label
    pooling = load_published("pool-table1")
    assert pooling.columns["nll_ivae"].estimator
    for label in ("iVAE", "iVAE MI"):
        assert pooling.row(label).figures == {"kl": "kl_ivae", "mi": "mi_ivae"}
        assert pooling.printed(label, "yahoo", "nll") is None
    table = load_published("bn-table1")
    for label, column in (("CNN-VAE", "nll"), ("Agg-VAE", "mi"), ("vMF-VAE (13)", "nll")):
        assert column in table.row(label).estimators


def test_a_table_that_does_not_exist() -> None:
    with pytest.raises(UserError, match="bn-table1"):
        load_published("bn-tabel1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [{"label": "VAE", "values": {"ptb": [1.0]}}]}, "not one value a column"),
        ({"rows": [{"label": "VAE", "values": {"yahoo": [1.0, 2.0]}}]}, "unknown corpus yahoo"),
        ({"rows": [{"label": "VAE"}, {"label": "VAE"}]}, "same label"),
        ({"rows": [{"label": "VAE", "figures": {"mi": "mi_ivae"}}]}, "unknown column mi"),
        ({"rows": [{"label": "VAE", "recepie": "vae"}]}, "recepie"),
        ({"claims": [{"text": "x", "left": {"row": "AE"}, "relation": "<", "right": {}}]}, "AE"),
    ],
)
def test_a_file_that_is_wrong(change: dict[str, object], message: str) -> None:
    right = {
        "kind": "table", "title": "a table", "source": "a paper", "corpora": {"ptb": "PTB"},
        "columns": {"nll": {"label": "NLL"}, "kl": {"label": "KL"}},
    }  # fmt: skip
    parse_published("a-table1", right)
    with pytest.raises(UserError, match=message):
        parse_published("a-table1", {**right, **change})


def test_every_explanation_is_of_a_claim() -> None:
    for name, why in load_explanations().items():
        published = load_published(name)
        texts = [claim.text for claim in published.claims]
        for text, ways in why.items():
            if text not in published.settings.get("statements", {}).values():
                assert text in texts, (name, text)
                assert published.claims[texts.index(text)].explanation == ways
            for way in ways:
                preset, _, corpus = way.partition("/")
                assert preset in PRESETS
                assert not corpus or corpus in published.corpora
