"""Which runs a table needs: shared between tables, the same size for all in the small protocol."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reproduction_support import SPLITS, table, write_corpora

from uncollapse.config import Recipe
from uncollapse.errors import RunError, UserError
from uncollapse.recipes import load_recipe, recipe_names
from uncollapse.reproduction.inputs import SETTINGS, Corpus, open_corpus, prepare
from uncollapse.reproduction.published import Row, load_published, published_names
from uncollapse.reproduction.records import Record
from uncollapse.reproduction.scaled_down import (
    DIALOGUES,
    SENTENCES,
    Cut,
    scaled_down,
    write_cut,
)
from uncollapse.reproduction.tasks import Task, at, make_task, system_name, tasks_of

OUT = Path("out")


def corpus(name: str = "ptb", edition: str = "", **changed: Any) -> Corpus:
    """A corpus whose files are nowhere."""
    edition = edition or name
    files = {split: f"{edition}/{split}" for split in ("train", "validation", "test")}
    values: dict[str, Any] = {
        "name": name, "edition": edition, "files": files, "sources": files, "data": "all",
        "overrides": (), "label_columns": (), "comparable": True, "reason": "",
        "settings": SETTINGS.get(name, ""),
    }  # fmt: skip
    return Corpus(**{**values, **changed})


def tasks(published: Any, preset: Any = "small", seeds: Any = (0,), **here: Corpus) -> list[Task]:
    """The runs of a table on corpora that are here."""
    return tasks_of(published, here or {"ptb": corpus()}, preset, OUT, seeds)


def recipe_of(task: Task) -> Recipe:
    """What a run trains."""
    return load_recipe(task.recipe, task.changes)


# --- runs are shared ----------------------------------------------------------------------------


def test_two_tables_that_need_the_same_run_get_the_same_one() -> None:
    one = table(rows=[{"label": "VAE", "recipe": "vae"}, {"label": "LM", "recipe": "lstm-lm"}])
    other = table(rows=[{"label": "LSTM-VAE", "recipe": "vae"}], columns={"au": {"label": "AU"}})
    (vae, lm), (again,) = tasks(one), tasks(other)
    assert again == vae
    assert lm.folder != vae.folder
    assert vae.folder == str(OUT / "runs" / "small" / "ptb" / "vae" / "seed-0")


def test_a_run_is_done_once_for_two_rows_of_a_table() -> None:
    rows = [{"label": label, "recipe": "vae"} for label in ("VAE", "VAE, again")]
    assert len(tasks(table(rows=rows), seeds=(0, 1))) == 2


def test_seeds_presets_and_editions_are_runs_of_their_own() -> None:
    one = table(rows=[{"label": "VAE", "recipe": "vae"}])
    found = [
        *tasks(one, seeds=(0, 1)),
        *tasks(one, "paper"),
        *tasks(one, ptb=corpus("ptb", "ptb-resplit")),
        *tasks(one, ptb=corpus("ptb", "ptb:dialogues")),
    ]
    assert len({task.folder for task in found}) == 5
    assert not any(":" in task.folder for task in found)
    assert [task.edition for task in found][-2:] == ["ptb-resplit", "ptb:dialogues"]


def test_all_systems_come_before_the_second_seed() -> None:
    assert [(t.system, t.seed) for t in tasks(table(), seeds=(0, 1))] == [
        ("vae", 0), ("lstm-lm", 0), ("vae", 1), ("lstm-lm", 1)
    ]  # fmt: skip


def test_cells_that_the_paper_lacks_and_corpora_that_are_not_here_need_no_run() -> None:
    printed = [{"label": "VAE", "recipe": "vae", "values": {"yahoo": [1.0, 2.0]}}]
    own = [{"label": "VAE", "values": {"ptb": [1.0, 2.0]}}]
    assert tasks(table(rows=printed)) == []
    assert [t.edition for t in tasks(table(rows=printed), yahoo=corpus("yahoo"))] == ["yahoo"]
    assert tasks(table(rows=own)) == []  # a row that is nothing trained


# --- what a table changes -----------------------------------------------------------------------


def test_what_a_row_keeps_survives_the_small_protocol_and_what_it_sets_gives_way() -> None:
    rows = [
        {
            "label": "VAE",
            "recipe": "vae",
            "set": ["decoder.hidden_dim=777", "training.max_epochs=99", "objective.samples=2"],
            "keep": ["encoder.hidden_dim=55"],
        }
    ]
    small, paper = (recipe_of(*tasks(table(rows=rows), preset)) for preset in ("small", "paper"))
    assert (small.decoder.hidden_dim, small.training.max_epochs) == (128, 6)
    assert small.encoder is not None
    assert small.encoder.hidden_dim == 55
    assert (paper.decoder.hidden_dim, paper.training.max_epochs) == (777, 99)


def test_the_paper_preset_changes_nothing_else() -> None:
    rows = [{"label": "B", "recipe": "bn-vae", "set": ["training.max_epochs=3"],
             "keep": ["latents.z.posterior.batch_norm.scale=0.5"]}]  # fmt: skip
    (task,) = tasks(table(rows=rows), "paper")
    changes = ["training.max_epochs=3", "latents.z.posterior.batch_norm.scale=0.5"]
    assert task.changes == (*changes, f"name={task.system}")
    assert recipe_of(task) == load_recipe("bn-vae", [*changes, f"name={task.system}"])


def test_a_recipe_takes_the_settings_of_its_corpus_where_it_has_any() -> None:
    assert at("vae", "yahoo") == "vae@yahoo"
    assert at("vae", "") == "vae"
    rows = [{"label": "VAE", "recipe": "vae"}]
    (task,) = tasks(table(rows=rows), yahoo=corpus("yahoo", "yahoo-resplit"))
    assert task.recipe == "vae@yahoo"
    assert task.system == "vae"


def test_a_corpus_that_cuts_sentences_never_makes_a_recipe_read_more() -> None:
    rows = [
        {"label": "short", "recipe": "vae", "set": ["data.max_length=7"]},
        {"label": "long", "recipe": "lstm-lm", "set": ["data.max_length=300"]},
    ]
    here = corpus(overrides=("data.max_length=40",))
    found = tasks(table(rows=rows), ptb=here)
    assert [recipe_of(task).data.max_length for task in found] == [7, 40]


def test_a_model_that_was_trained_elsewhere_is_not_trained_again() -> None:
    rows = [
        {"label": "VAE", "recipe": "vae"},
        {"label": "from Yahoo", "recipe": "vae", "trained_on": "yahoo"},
    ]
    here = {"ptb": corpus(), "yahoo": corpus("yahoo", "yahoo-resplit")}
    published = table(rows=rows, corpora={"ptb": "PTB"})
    own, moved = tasks(published, **here)
    (trained,) = tasks(table(rows=rows[:1], corpora={"yahoo": "Yahoo"}), yahoo=here["yahoo"])
    assert moved.run == trained.run == trained.folder
    assert moved.folder not in (own.folder, trained.folder)
    assert (moved.train, moved.validation) == (trained.train, trained.validation)
    assert moved.files == own.files
    assert moved.changes[:-1] == trained.changes[:-1]
    assert tasks(published, ptb=here["ptb"]) == [own]  # Yahoo is not here
    # a corpus may stand in for another: then it is the same run
    same = corpus("yahoo", "ptb")
    assert tasks(published, ptb=corpus(), yahoo=same) == [own]


# --- names --------------------------------------------------------------------------------------


def test_names_of_systems_are_unique_and_fit_for_folders() -> None:
    rows: dict[str, set[Any]] = {}
    for name in published_names():
        for row in load_published(name).rows:
            if row.recipe is not None:
                key = (row.recipe, tuple(sorted(row.keep)))
                rows.setdefault(system_name(row.recipe, row.keep), set()).add(key)
    assert len(rows) > 50
    assert {name: keys for name, keys in rows.items() if len(keys) > 1} == {}
    assert len({name.casefold() for name in rows}) == len(rows)  # some systems fold case
    for name in rows:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.,=+_-]*", name), name
        assert not name.endswith(".")
        assert len(name) < 200


def test_what_a_name_says() -> None:
    assert system_name("bn-vae", []) == "bn-vae"
    keep = ["latents.z.posterior.batch_norm.scale=0.6"]
    assert system_name("bn-vae", keep) == "bn-vae,scale=0.6"


# --- the small protocol -------------------------------------------------------------------------


def every_recipe() -> list[str]:
    """Each recipe with the settings of each corpus that it can be trained on."""
    found = []
    for name in recipe_names():
        corpora = SENTENCES if load_recipe(name).condition is None else DIALOGUES
        settings = dict.fromkeys(SETTINGS.get(corpus, "") for corpus in corpora)
        found += [at(name, one) for one in settings]
    return list(dict.fromkeys(found))


@pytest.mark.slow
def test_every_recipe_is_scaled_down_to_one_budget() -> None:
    adversarial = set()
    for name in every_recipe():
        before, small = load_recipe(name), load_recipe(name, scaled_down(name))
        training = small.training
        assert training.optimizer == "adam", name
        assert training.batch_size == 32, name
        assert training.plateau is None, name
        assert small.decoder.hidden_dim == 128, name
        if small.discriminator is not None:
            adversarial.add(name)
        else:
            rate = 0.001 if small.decoder.kind == "transformer" else 0.002
            assert (training.learning_rate, training.max_epochs) == (rate, 6), name
        # what makes the system is as it was
        assert small.latents.keys() == before.latents.keys(), name
        for latent, config in small.latents.items():
            own = before.latents[latent]
            assert config.posterior.kind == own.posterior.kind, name
            assert config.prior.kind == own.prior.kind, name
            assert config.divergence == own.divergence, name
        assert small.strategy.kind == before.strategy.kind, name
        assert small.objective.supervision == before.objective.supervision, name
    assert adversarial  # the module says that these have another budget


@pytest.mark.parametrize("name", ["vae@yahoo", "pretrained-cyclical-vae", "sa-vae", "cvae"])
def test_what_is_small_stays_as_it_is(name: str) -> None:
    changes = scaled_down(name)
    assert load_recipe(name, scaled_down(name, changes)) == load_recipe(name, changes)


@pytest.mark.parametrize("name", ["vae", "beta-vae", "cyclical-vae", "pretrained-free-bits-vae"])
def test_schedules_shrink_with_the_epochs(name: str) -> None:
    small = load_recipe(name, scaled_down(name))
    weight = small.objective.weight.model_dump()
    lengths = [weight.get(key) or 0 for key in ("epochs", "period_epochs")]
    lengths.append(small.strategy.model_dump().get("epochs") or 0)
    assert max(lengths) <= small.training.max_epochs


# --- corpora ------------------------------------------------------------------------------------


def test_the_grammar_needs_no_folder(tmp_path: Path) -> None:
    found = open_corpus("grammar", "small", None, dialogues=False)
    assert found.comparable
    assert not list(tmp_path.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        cuts = {**SENTENCES, "grammar": Cut(30, 10, 10)}
        patch.setattr("uncollapse.reproduction.scaled_down.SENTENCES", cuts)
        ready = prepare(found, "small", tmp_path)
        again = prepare(found, "small", tmp_path)
    assert ready == again
    counts = {s: len(Path(f).read_text().splitlines()) for s, f in ready.files.items()}
    assert counts == {"train": 30, "validation": 10, "test": 10}
    texts = [Path(file).read_text() for file in ready.files.values()]
    assert len(set(texts)) == 3  # drawn from three seeds
    first = json.loads(texts[0].splitlines()[0])
    assert first["label"]


def test_a_corpus_is_cut_from_its_beginning(tmp_path: Path) -> None:
    folder = write_corpora(tmp_path / "corpora")
    found = open_corpus("ptb", "small", folder, dialogues=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uncollapse.reproduction.scaled_down.SENTENCES", {"ptb": Cut(5, 3, 1_000)})
        ready = prepare(found, "small", tmp_path / "out")
    whole = (folder / "ptb" / "train.txt").read_text().splitlines()
    assert Path(ready.files["train"]).read_text().splitlines() == whole[:5]
    assert len(Path(ready.files["test"]).read_text().splitlines()) == SPLITS["test"]
    assert prepare(found, "paper", tmp_path / "other").files == found.sources
    assert not (tmp_path / "other").exists()


def dialogues(path: Path, count: int) -> Path:
    """Dialogues of two turns, numbered."""
    rows = [
        {
            "id": number,
            "topic": "work",
            "turns": [
                {"speaker": "A", "text": f"question {number}", "act": "question"},
                {"speaker": "B", "text": f"answer {number}", "act": 3, "emotion": "joy"},
            ],
        }
        for number in range(count)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_dialogues_are_spread_over_the_file_and_their_turns_are_sentences(tmp_path: Path) -> None:
    source = dialogues(tmp_path / "all.jsonl", 10)
    write_cut(source, 4, tmp_path / "whole.jsonl", whole_dialogues=True)
    found = [json.loads(line)["id"] for line in (tmp_path / "whole.jsonl").open()]
    assert found == [0, 2, 5, 7]
    write_cut(source, 3, tmp_path / "turns.jsonl", whole_dialogues=False)
    rows = [json.loads(line) for line in (tmp_path / "turns.jsonl").open()]
    assert rows == [
        {"text": "question 0", "act": "question", "topic": "work"},
        {"text": "answer 0", "emotion": "joy", "topic": "work"},
        {"text": "question 1", "act": "question", "topic": "work"},
    ]
    write_cut(source, 99, tmp_path / "more.jsonl", whole_dialogues=True)
    assert (tmp_path / "more.jsonl").read_text() == source.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "all.jsonl", "more.jsonl", "turns.jsonl", "whole.jsonl"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"turns": [{"text": "a"}]}\n{"turns": \n', "line 2: not a dialogue"),
        (b'{"turns": [{"txt": "a"}]}\n', "line 1: not a dialogue"),
        (b'{"turns": "none"}\n', "line 1: not a dialogue"),
        (b"caf\xe9\n", "not valid UTF-8"),
    ],
)
def test_a_damaged_corpus_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    source = tmp_path / "train.jsonl"
    source.write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        write_cut(source, 10, tmp_path / "cut", whole_dialogues=False)
    assert str(source) in str(error.value)
    assert not (tmp_path / "cut").exists()


def test_a_stand_in_has_the_settings_of_what_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "yelp_sentiment"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text('{"text": "good food", "label": "1"}\n')
    found = open_corpus("yelp15", "small", tmp_path, dialogues=False)
    assert found.edition == "short-yelp-resplit"
    assert not found.comparable
    assert found.reason
    assert found.settings == "short-yelp"
    same = open_corpus("short-yelp", "small", tmp_path, dialogues=False)
    assert replace(same, name="yelp15", reason=found.reason) == found


def test_another_content_of_a_corpus_is_another_corpus(tmp_path: Path) -> None:
    source = tmp_path / "corpora" / "ptb"
    source.mkdir(parents=True)
    for name in ("train", "valid", "test"):
        (source / f"{name}.txt").write_text(f"a sentence of {name}\n" * 3)
    row = Row(label="x", recipe="vae")

    def task() -> Task:
        corpus = open_corpus("ptb", "small", source.parent, dialogues=False)
        ready = prepare(corpus, "small", tmp_path)
        return make_task(row, ready, ready, "small", tmp_path, 0, ("standard",))

    before = task()
    assert task() == before
    cost, made = {"seconds": 1.0}, {"data": before.data, "digest": before.digest, "samples": 50}
    record = Record(
        "small", before.edition, "vae", before.recipe, list(before.changes), 0,
        {"nll": {"value": 1.0}}, cost, [], {}, made,
    )  # fmt: skip
    Path(before.folder).mkdir(parents=True)
    record.save(Path(before.folder))
    assert before.finished() == record
    (source / "train.txt").write_text("another sentence\n" * 3)
    after = task()
    assert after.digest != before.digest
    assert Path(after.train).read_text() == "another sentence\n" * 3
    with pytest.raises(RunError, match="other data of the same name"):
        after.finished()
