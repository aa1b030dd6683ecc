"""Embeddings that start from the vectors of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import small_recipe

from uncollapse import TextVAE
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import UserError
from uncollapse.model import Model
from uncollapse.word_vectors import start_from_vectors

TEXTS = ["the cat sat", "a dog ran home", "the dog sat"]
WIDTHS = ["encoder.embedding_dim=3", "decoder.embedding_dim=3"]


def test_known_words_start_from_their_vectors_and_others_stay(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("cat 1 2 3\nzebra 9 9 9\ndog -1 0 0.5\n")
    tokenizer = Tokenizer.train(TEXTS, "whitespace", None)
    torch.manual_seed(0)
    model = Model(small_recipe("cvae", WIDTHS), len(tokenizer))
    before = [table.weight.clone() for table in model.embeddings()]
    assert len(before) == 2  # of encoder, which the context shares, and decoder
    assert start_from_vectors(model, tokenizer, str(file)) == 2
    known = {"cat": [1, 2, 3], "dog": [-1, 0, 0.5]}
    for table, start in zip(model.embeddings(), before, strict=True):
        for row, word in enumerate(tokenizer.tokens):
            expected = torch.tensor(known[word]).float() if word in known else start[row]
            assert torch.equal(table.weight[row], expected), word


@pytest.mark.parametrize(
    ("lines", "widths", "message"),
    [
        ("cat 1 2\n", WIDTHS, "2"),
        ("zebra 1 2 3\n", WIDTHS, "no vector for any"),
        ("cat 1 2 3\n", [*WIDTHS, "decoder.embedding_dim=4"], "embeddings of one width"),
    ],
)
def test_vectors_that_do_not_fit(
    tmp_path: Path, lines: str, widths: list[str], message: str
) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(lines)
    tokenizer = Tokenizer.train(TEXTS, "whitespace", None)
    model = Model(small_recipe("vae", widths), len(tokenizer))
    with pytest.raises(UserError, match=message) as error:
        start_from_vectors(model, tokenizer, str(file))
    assert "\n" not in str(error.value)


def test_a_wrong_file_leaves_no_run(tmp_path: Path) -> None:
    small = ["encoder.hidden_dim=4", "decoder.hidden_dim=4", "training.max_epochs=1"]
    vae = TextVAE.from_recipe("vae", overrides=[*small, f"data.vectors={tmp_path}/none.txt"])
    with pytest.raises(UserError, match=r"none\.txt"):
        vae.fit(TEXTS * 5, out=tmp_path / "run", device="cpu", progress=False)
    assert not (tmp_path / "run").exists()
