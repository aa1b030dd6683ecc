"""Labels from the data to the run folder: columns of classes, and what refuses to supervise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uncollapse import TextVAE, saving
from uncollapse.benchmark.request import require_sentences
from uncollapse.benchmark.summary import TestSentences
from uncollapse.config import DataConfig, SupervisionConfig
from uncollapse.data import cache, corpus
from uncollapse.data.batches import BucketedBatches, sequential_batches
from uncollapse.data.check import check
from uncollapse.data.corpus import Corpus, LabelColumn
from uncollapse.data.sources import read_rows
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import RunError, UserError
from uncollapse.loading import available_columns, corpus_of, texts_of
from uncollapse.recipes import load_recipe
from uncollapse.runs import check_supervision, train_run

RECORDS: list[dict[str, Any]] = [
    {"text": "a b", "mood": "sad", "act": 10},
    {"text": "b", "act": 9, "mood": ""},
    {"text": " ", "mood": "never", "act": 1},
    {"text": "a c a", "mood": "glad"},
    {"text": "c", "mood": " glad ", "act": None},
]
MOODS, ACTS = [1, -1, 0, 0], [1, 0, -1, -1]  # of the four sentences that have a word
TOKENIZER = Tokenizer.train(["a b c"], "whitespace", None)
CONFIG = DataConfig()
BOTH = {"mood": None, "act": None}


def write(path: Path, records: list[dict[str, Any]] = RECORDS) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".csv":
        rows = [[str(r.get(key) or "") for key in ("act", "text", "mood")] for r in records]
        path.write_text("".join(",".join(row) + "\n" for row in [["act", "text", "mood"], *rows]))
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        columns = {key: [r.get(key) for r in records] for key in ("mood", "text", "act")}
        parquet.write_table(pyarrow.table(columns), path)
    else:
        path.write_text("".join(f"{record['text']}\n" for record in records))
    return path


def columns_of(corpus: Corpus) -> dict[str, tuple[list[int], list[str]]]:
    return {name: (column.ids.tolist(), column.names) for name, column in corpus.columns.items()}


def message_of(call: Callable[[], Any], kind: type[Exception] = UserError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


EXPECTED = {"mood": (MOODS, ["glad", "sad"]), "act": (ACTS, ["9", "10"])}


# --- rows and corpora -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_several_columns_come_in_one_pass(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a.{suffix}")
    rows = [row[:2] for row in read_rows(path, label_columns=["mood", "act"])]
    assert rows[:2] == [("a b", ("sad", "10")), ("b", (None, "9"))]
    assert rows[3:] == [("a c a", ("glad", None)), ("c", ("glad", None))]
    turned = read_rows(path, label_columns=["act", "mood"])
    assert [row.labels for row in turned] == [labels[::-1] for _, labels in rows]
    said = message_of(lambda: list(read_rows(path, label_columns=["mood", "acts"])))
    assert f"{path}: no column 'acts'; did you mean 'act'?" in said
    corpus = Corpus.build(path, TOKENIZER, label_columns=BOTH, cache=tmp_path / "cache")
    assert columns_of(corpus) == EXPECTED


def test_the_first_column_is_that_of_the_probes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    corpus = Corpus.build(path, TOKENIZER, label_columns=BOTH, cache=tmp_path / "cache")
    assert corpus.label_names == ["glad", "sad"]
    assert corpus.labels is not None
    assert corpus.labels.dtype == np.int64
    assert corpus.labels.tolist() == MOODS
    assert corpus.columns["mood"].ids.dtype == np.int32
    turned = {"act": None, "mood": None}
    turned = Corpus.build(path, TOKENIZER, label_columns=turned, cache=tmp_path / "cache")
    assert (turned.label_names, list(turned.columns)) == (["9", "10"], ["act", "mood"])
    plain = Corpus.from_texts(["a"], TOKENIZER)
    assert (plain.columns, plain.labels, plain.label_ids, plain.label_names) == ({}, None, None, [])


def test_the_cache_keeps_columns_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{f"{key}/\n é": value for key, value in r.items() if key != "text"} for r in RECORDS]
    records = [{**r, "text": s["text"]} for r, s in zip(records, RECORDS, strict=True)]
    path = write(tmp_path / "a.jsonl", records)  # columns whose names are no file names
    wanted = {"mood/\n é": ["sad", "glad", "new"], "act/\n é": None}

    def build(columns: dict[str, list[str] | None]) -> Corpus:
        return Corpus.build(path, TOKENIZER, label_columns=columns, cache=tmp_path / "cache")

    first = build(wanted)
    build({"mood/\n é": ["glad", "sad"]})
    build(dict(reversed(wanted.items())))
    assert len(list((tmp_path / "cache").iterdir())) == 3
    monkeypatch.setattr(cache, "_build", None)
    assert columns_of(build(wanted)) == columns_of(first)
    assert columns_of(first)["mood/\n é"] == ([0, -1, 1, 1], ["sad", "glad", "new"])


def test_the_summary_counts_labels_of_every_column(tmp_path: Path) -> None:
    config = DataConfig(label_column="act")
    corpus = corpus_of(write(tmp_path / "a.jsonl"), TOKENIZER, config, columns=["mood"])
    assert corpus.summary() == (
        "4 sentences, 7 tokens (0.00 % unknown); 1 empty rows dropped; "
        "act: 2 of 4 labelled, 2 classes; mood: 3 of 4 labelled, 2 classes"
    )


def test_parts_of_a_corpus_keep_all_columns() -> None:
    corpus = corpus_of(RECORDS, TOKENIZER, CONFIG, columns=["mood", "act"])
    part = corpus.select(np.array([2, 0]))
    assert columns_of(part) == {"mood": ([0, 1], ["glad", "sad"]), "act": ([-1, 1], ["9", "10"])}
    assert columns_of(corpus.head(2))["mood"] == ([1, -1], ["glad", "sad"])
    rest, held = corpus.hold_out(0.5, 9)
    for name, (ids, names) in columns_of(corpus).items():
        both = np.concatenate([rest.columns[name].ids, held.columns[name].ids])
        assert sorted(both) == sorted(ids)
        assert rest.columns[name].names == held.columns[name].names == names


def test_an_unseen_class_is_named_with_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.jsonl")
    known = {"mood": ["sad", "gladly"]}  # "never" is the class of an empty row
    expected = "row 4: unknown class in column 'mood': 'glad'; did you mean 'gladly'?"
    for chunk in (8192, 2, 1):
        for module in (cache, corpus):
            monkeypatch.setattr(module, "CHUNK", chunk)
        options = {"classes": known, "columns": ["act", "mood"]}
        said = message_of(lambda options=options: corpus_of(path, TOKENIZER, CONFIG, **options))
        assert said == f"{path}, {expected}"
        said = message_of(lambda options=options: corpus_of(RECORDS, TOKENIZER, CONFIG, **options))
        assert said == f"the list of sentences, {expected}"


def test_batches_of_every_process_have_the_labels_of_their_sentences() -> None:
    texts = ["a " * (1 + i % 7) for i in range(50)]
    labels = {"own": list(range(50)), "half": [i if i % 2 else None for i in range(50)]}
    corpus = Corpus.from_texts(texts, TOKENIZER, labels=labels)
    for rank in range(3):
        batches = [
            *BucketedBatches(corpus, 8, pool=2, rank=rank, world=3).epoch(1),
            *sequential_batches(corpus, 8, rank=rank, world=3),
        ]
        for batch in batches:
            assert batch.labels["own"].tolist() == batch.index.tolist()
            expected = [i // 2 if i % 2 else -1 for i in batch.index.tolist()]
            assert batch.labels["half"].tolist() == expected
            twice = batch.repeat(2)
            assert twice.labels["half"].tolist() == 2 * expected
            assert (twice.size, twice.total) == (2 * batch.size, batch.total)


def test_the_check_of_a_file_counts_one_column(tmp_path: Path) -> None:
    report = check(write(tmp_path / "a.jsonl"), label_column="mood")
    assert (report.labels, report.missing_labels) == ({"glad": 2, "sad": 1}, 1)
    report = check(tmp_path / "a.jsonl")
    assert (report.labels, report.missing_labels) == ({}, 0)


# --- whatever a user calls data ---------------------------------------------------------------


def test_records_in_memory_are_as_those_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    for data in (path, str(path), RECORDS, tuple(RECORDS)):
        corpus = corpus_of(data, TOKENIZER, CONFIG, columns=["mood", "act"])
        assert columns_of(corpus) == EXPECTED
        assert list(texts_of(data, CONFIG)) == [record["text"] for record in RECORDS]
    renamed = [{"said": r["text"], "mood": np.int64(3)} for r in RECORDS]
    config = DataConfig(text_column="said")
    assert list(texts_of(renamed, config))[3] == "a c a"
    corpus = corpus_of(renamed, TOKENIZER, config, columns=["mood"])
    assert columns_of(corpus) == {"mood": ([0, 0, 0, 0], ["3"])}


def test_bare_texts_among_records_have_no_labels() -> None:
    data = ["a", {"text": "b", "mood": True}, "c"]
    corpus = corpus_of(data, TOKENIZER, CONFIG, columns=["mood"])
    assert columns_of(corpus) == {"mood": ([-1, 0, -1], ["true"])}


def test_the_column_of_the_recipe_comes_first_and_bare_texts_do_without() -> None:
    config = DataConfig(label_column="act")
    corpus = corpus_of(RECORDS, TOKENIZER, config, columns=["mood", "act"])
    assert list(corpus.columns) == ["act", "mood"]
    classes = {"act": ["10", "9"], "other": ["x"]}
    assert corpus_of(RECORDS, TOKENIZER, config, classes=classes).label_names == ["10", "9"]
    assert corpus_of(["a", "b"], TOKENIZER, config).columns == {}


def test_vectors_need_no_labels(tmp_path: Path) -> None:
    config = DataConfig(label_column="nowhere")
    data = [RECORDS[0], RECORDS[3]]
    for given in (data, write(tmp_path / "a.jsonl", data)):
        assert corpus_of(given, TOKENIZER, config, keep_rows=True).columns == {}
        corpus = corpus_of(given, TOKENIZER, config, columns=["mood"], keep_rows=True)
        assert columns_of(corpus) == {"mood": ([1, 0], ["glad", "sad"])}
    wanted = {"classes": {"mood": ["glad"]}, "columns": ["mood"], "keep_rows": True}
    path = tmp_path / "a.jsonl"
    assert f"{path}, row 1" in message_of(lambda: corpus_of(path, TOKENIZER, config, **wanted))
    said = message_of(lambda: corpus_of(RECORDS, TOKENIZER, CONFIG, keep_rows=True))
    assert said == "sentence 3 is empty"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a", "b"], 'without labels (mood); give each as {"text": …, "mood": …}'),
        ([{"txt": "a", "mood": 1}], "sentence 1: no column 'text'; did you mean 'txt'?"),
        ([{"text": "a", "mood": 1}, {"mood": 1}], "sentence 2: no column 'text' (columns: mood)"),
        ([{"text": "a"}, {"text": "a", "moods": 1}], "no column 'mood'; did you mean 'moods'?"),
        ([{"text": 1, "mood": 1}], "sentence 1: column 'text' must be a string, not int"),
        ([{"text": "a", "mood": []}], "sentence 1: label 'mood' must be a string or a number"),
        (["a", 1], "sentence 2 is not text: 1"),
        (["\ud800"], "sentence 1: the text has a lone surrogate"),
        ({"text": ["a"], "mood": [1]}, "a list of sentences, not a mapping"),
        ([], "the list of sentences has no sentence"),
    ],
)
def test_records_that_are_refused(data: Any, message: str) -> None:
    said = message_of(lambda: corpus_of(data, TOKENIZER, CONFIG, columns=["mood"]))
    assert message in said


def test_columns_that_the_data_has(tmp_path: Path) -> None:
    wanted = ["act", "mood", "other"]
    data = [tmp_path / f"a.{suffix}" for suffix in ("csv", "jsonl", "parquet")]
    for path in data:
        write(path)
    for given in (*data, RECORDS, [*RECORDS[1:], "a", RECORDS[0]]):
        assert available_columns(given, CONFIG, wanted) == ["act", "mood"]
        assert available_columns(given, CONFIG, []) == []
    assert available_columns(write(tmp_path / "a.txt"), CONFIG, ["text", "mood"]) == []
    assert available_columns(["a"], CONFIG, wanted) == []
    late = write(tmp_path / "late.jsonl", [*[{"text": "a"}] * 3, {"text": "b", "mood": "x"}])
    assert available_columns(late, CONFIG, wanted) == ["mood"]


def test_a_comparison_reads_records_too() -> None:
    for column, names in (("mood", ["glad", "sad"]), ("act", ["9", "10"]), (None, [])):
        shown = TestSentences.read(RECORDS, "text", column)
        assert (shown.texts, shown.total) == (["a b", "b", "a c a", "c"], 4)
        assert shown.label_names == names
        assert shown.labels == {"mood": MOODS, "act": ACTS, None: None}[column]
    assert TestSentences.read(["a", " "], "text", "mood").labels is None
    assert TestSentences.read([{"text": "a", "label": 2}], "text", None).label_names == ["2"]
    require_sentences("test", RECORDS, "text")
    said = message_of(lambda: require_sentences("test", [{"text": " "}], "text"))
    assert said == "the test data has no sentences"


# --- the recipe -------------------------------------------------------------------------------


def supervised(*parts: str) -> str:
    return f"objective.supervision=[{', '.join(f'{{{part}}}' for part in parts)}]"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["column: a, variable: z", "column: a, variable: z, index: 1"], "column a is there twice"),
        (["column: a, variable: z", "column: b, variable: z"], "index 0 of z is there twice"),
        (["column: a"], "objective.supervision.0.variable: field required"),
        (["column: a, variable: z, index: -1"], "objective.supervision.0.index: input should be"),
        (["column: a, variable: z, weight: 0"], "objective.supervision.0.weight"),
        (["column: a, variable: z, wieght: 1"], "did you mean 'weight'?"),
    ],
)
def test_supervision_that_a_recipe_cannot_mean(parts: list[str], message: str) -> None:
    assert message in message_of(lambda: load_recipe("discrete-vae", [supervised(*parts)]))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"variable": "y"}, "unknown discrete variable 'y'; known: c, z.component"),
        ({"variable": "z.componet"}, "did you mean 'z.component'"),
        ({"variable": "c", "index": 2}, "variable 'c' has no index 2, indexes 0 to 1"),
        ({"variable": "z.component", "index": 1}, "has no index 1, only index 0"),
        ({"variable": "z.component"}, "3 classes 'mood', but 'z.component' has 2 values only"),
        (
            {"column": "blank", "variable": "c"},
            "no training sentence has a label in column 'blank'",
        ),
    ],
)
def test_variables_that_cannot_tell_a_label(part: dict[str, Any], message: str) -> None:
    sizes = {"c": (2, 3), "z.component": (1, 2)}
    columns = {
        "mood": LabelColumn(np.array([0, 1, 2, -1], np.int32), ["a", "b", "c"]),
        "blank": LabelColumn(np.array([-1, -1], np.int32), []),
    }
    good = SupervisionConfig(column="mood", variable="c", index=1)
    check_supervision([good], sizes, columns)
    wrong = SupervisionConfig(**{"column": "mood", **part})
    assert message in message_of(lambda: check_supervision([good, wrong], sizes, columns))
    assert "no variable is discrete" in message_of(lambda: check_supervision([good], {}, columns))


# --- the run ----------------------------------------------------------------------------------

TINY = (
    "encoder.embedding_dim=6",
    "encoder.hidden_dim=8",
    "decoder.embedding_dim=8",
    "decoder.hidden_dim=8",
    "latents.c.groups=2",
    "latents.c.posterior.categories=3",
    "training.max_epochs=1",
    supervised("column: mood, variable: c", "column: act, variable: c, index: 1"),
)
CLASSES = {"mood": ["glad", "sad"], "act": ["9", "10"]}


def train(folder: Path, data: Any, validation: Any, *more: str, **options: Any) -> Any:
    recipe = load_recipe("discrete-vae", [*TINY, *more])
    options = {"seed": 0, "device": "cpu", "resume": False, "progress": False, **options}
    return train_run(recipe, data, validation, folder, say=options.pop("say", None), **options)


def test_a_run_keeps_the_classes_of_its_training_data(tmp_path: Path) -> None:
    said: list[str] = []
    # the classes of validation alone would be numbered otherwise
    validation = [{"text": "b a", "mood": "sad", "act": 10}, {"text": "c"}]
    found = train(tmp_path / "run", RECORDS * 8, validation, say=said.append)
    assert found.classes == CLASSES
    assert saving.read_classes(tmp_path / "run") == CLASSES
    assert json.loads((tmp_path / "run" / "labels.json").read_text()) == CLASSES
    config = saving.read_config(tmp_path / "run")
    assert set(config["files"]) == {
        "recipe.yaml", "tokenizer.json", "labels.json", "model.safetensors",
    }  # fmt: skip
    counts = "mood: 24 of 32 labelled, 2 classes; act: 16 of 32 labelled, 2 classes"
    assert config["run"]["labels"] == counts
    assert said[0].startswith("training: ")
    assert said[0].endswith(counts)
    assert said[1].endswith("mood: 1 of 2 labelled, 2 classes; act: 1 of 2 labelled, 2 classes")
    saving.read_model(tmp_path / "run")

    (tmp_path / "run" / "labels.json").write_text('{"mood": ["sad", "glad"]}')
    said_now = message_of(lambda: saving.read_classes(tmp_path / "run"), RunError)
    assert "labels.json is damaged" in said_now
    assert said_now == message_of(lambda: saving.read_model(tmp_path / "run"), RunError)
    (tmp_path / "run" / "labels.json").unlink()
    said_now = message_of(lambda: saving.read_model(tmp_path / "run"), RunError)
    assert "labels.json is missing" in said_now


def test_held_out_sentences_keep_their_labels(tmp_path: Path) -> None:
    said: list[str] = []
    train(tmp_path / "run", RECORDS * 8, None, say=said.append)
    assert said[0] == "no validation data: 2 training sentences held out"
    labelled = [re.findall(r"(\w+): (\d+) of (\d+) labelled", line) for line in said[1:3]]
    assert [[name for name, *_ in line] for line in labelled] == 2 * [["mood", "act"]]
    for place, (have, whole) in enumerate([(24, 32), (16, 32)]):
        assert sum(int(line[place][1]) for line in labelled) == have
        assert sum(int(line[place][2]) for line in labelled) == whole


def test_a_run_without_supervision_has_no_classes(tmp_path: Path) -> None:
    found = train(tmp_path / "run", RECORDS * 4, None, "objective.supervision=[]")
    assert found.classes == saving.read_classes(tmp_path / "run") == {}
    assert not (tmp_path / "run" / "labels.json").exists()
    assert "labels" not in saving.read_config(tmp_path / "run")["run"]
    TextVAE.from_pretrained(tmp_path / "run")


def test_a_run_is_resumed_with_its_own_classes_only(tmp_path: Path) -> None:
    recipe, facts = load_recipe("discrete-vae", TINY), {"seed": 0}
    saving.start_run(tmp_path / "run", recipe, TOKENIZER, facts, CLASSES)
    assert saving.read_classes(tmp_path / "run") == CLASSES
    saving.check_resumable(tmp_path / "run", recipe, facts, CLASSES)
    for other in ({"mood": ["sad", "glad"], "act": ["9", "10"]}, {}, None):
        said = message_of(
            lambda o=other: saving.check_resumable(tmp_path / "run", recipe, facts, o)
        )
        assert "a run with another set of classes" in said


def relabelled(**columns: Any) -> list[dict[str, Any]]:
    return [{**record, **columns} for record in RECORDS * 4]


@pytest.mark.parametrize(
    ("data", "validation", "more", "message"),
    [
        (["a b", "c"], None, (), "sentences without labels (mood, act)"),
        (RECORDS, ["a b", "c"], (), "sentences without labels (mood, act)"),
        (RECORDS, relabelled(mood="sadly"), (), "in column 'mood': 'sadly'; did you mean 'sad'?"),
        (relabelled(mood=None), None, (), "no training sentence has a label in column 'mood'"),
        (RECORDS, RECORDS, ("latents.c.groups=1",), "variable 'c' has no index 1, only index 0"),
        ([*RECORDS, *({"text": "a", "act": i} for i in range(5))], RECORDS, (), "7 classes 'act'"),
        (RECORDS, RECORDS, (supervised("column: mood, variable: z"),), "unknown discrete variable"),
        (RECORDS, RECORDS, (supervised("column: moods, variable: c"),), "did you mean 'mood'?"),
    ],
)
def test_nothing_is_written_where_labels_do_not_fit(
    data: Any, validation: Any, more: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    said = message_of(lambda: train(tmp_path / "run", data, validation, *more))
    assert message in said
    assert not (tmp_path / "run").exists()
