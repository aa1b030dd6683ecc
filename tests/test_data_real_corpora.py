"""Published corpora, found through the environment variable UNCOLLAPSE_CORPORA."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from uncollapse.data.batches import BucketedBatches, sequential_batches
from uncollapse.data.check import check
from uncollapse.data.corpus import Corpus
from uncollapse.data.sources import read_rows
from uncollapse.data.tokenizer import Tokenizer

# file: sentences, tokens, distinct words
FILES = {
    "ptb/train.txt": (42_068, 887_521, 9_999),
    "ptb/valid.txt": (3_370, 70_390, 6_021),
    "ptb/test.txt": (3_761, 78_669, 6_048),
    "yelp_sentiment/train.jsonl": (100_000, 894_521, 8_926),
    "yelp_sentiment/validation.jsonl": (10_000, 95_294, 5_290),
    "yelp_sentiment/test.jsonl": (10_000, 94_741, 5_260),
    "yahoo_20k/train.txt": (16_000, 1_260_536, 18_458),
    "yahoo_20k/validation.txt": (2_000, 160_400, 9_989),
    "yahoo_20k/test.txt": (2_000, 158_417, 9_860),
}


def corpus_file(name: str) -> Path:
    folder = os.environ.get("UNCOLLAPSE_CORPORA")
    if not folder:
        pytest.skip("the environment variable UNCOLLAPSE_CORPORA does not name a folder of corpora")
    path = Path(folder) / name
    if not path.is_file():
        pytest.skip(f"no corpus {path}")
    return path


def tokenizer_of(path: Path) -> Tokenizer:
    unk_token = "_UNK" if "yahoo" in str(path) else "<unk>"
    texts = (row.text for row in read_rows(path))
    return Tokenizer.train(texts, "whitespace", None, unk_token=unk_token)


@pytest.mark.parametrize("name", FILES)
def test_published_counts(name: str, tmp_path: Path) -> None:
    path = corpus_file(name)
    sentences, tokens, words = FILES[name]
    columns = {"label": None} if "yelp" in name else {}
    tokenizer = tokenizer_of(path)
    corpus = Corpus.build(path, tokenizer, label_columns=columns, cache=tmp_path)
    assert (corpus.report.sentences, corpus.report.tokens) == (sentences, tokens)
    assert corpus.report.empty == corpus.report.cut == 0
    assert all(column.labelled == sentences for column in corpus.columns.values())
    # The unknown word is one of the distinct words wherever a text spells it out.
    assert len(tokenizer) == 4 + words - (corpus.report.unknown > 0)
    assert corpus.label_names == (["0", "1"] if columns else [])
    for i, (text, *_) in enumerate(read_rows(path)):
        if i % 97 == 0:
            assert tokenizer.decode(corpus.sentence(i)) == text


def test_dialogue_words_match_the_regular_expression() -> None:
    path = corpus_file("dailydialog/train.jsonl")
    dialogues = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    texts = [turn["text"] for dialogue in dialogues for turn in dialogue["turns"]]
    tokenizer = Tokenizer.train(texts, "words", None)
    ids, _ = tokenizer.encode_flat(texts)
    assert (len(ids), len(tokenizer) - 4) == (1_179_026, 18_327)
    words = re.findall(r"\w+(?:'\w+)*|[^\w\s]", texts[0].lower())
    assert tokenizer.decode(tokenizer.encode(texts[0])) == " ".join(words)


def test_pools_save_padding_on_ptb(tmp_path: Path) -> None:
    path = corpus_file("ptb/train.txt")
    corpus = Corpus.build(path, tokenizer_of(path), cache=tmp_path)

    def padded(pool: int) -> float:
        real = whole = 0
        for batch in BucketedBatches(corpus, 32, pool=pool).epoch(0):
            real += int(batch.lengths.sum())
            whole += batch.tokens.numel()
        return 1 - real / whole

    assert padded(100) == pytest.approx(0.02, abs=0.005)
    assert padded(1) == pytest.approx(0.52, abs=0.02)
    predicted = sum(
        int(batch.target_mask.sum()) for batch in sequential_batches(corpus, 512, max_tokens=20_000)
    )
    assert predicted == 929_589  # the published number of tokens, </s> counted


def test_ptb_splits_overlap_as_published() -> None:
    train, valid = corpus_file("ptb/train.txt"), corpus_file("ptb/valid.txt")
    test = corpus_file("ptb/test.txt")
    report = check(valid, train=train, against=[train])
    assert report.shared == {str(train): 85}
    assert report.distinct_tokens == 6_021
    assert check(test, train=train, against=[train]).shared == {str(train): 64}
