from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from uncollapse.data.tokenizer import BOS, EOS, PAD, SPECIAL_TOKENS, UNK, Kind, Tokenizer
from uncollapse.errors import UserError

TEXTS = [
    "the cat sat on the mat .",
    "The dog didn't sit; it ran!",
    "a <unk> is not a </s> , nor a <pad> or <s>",
    "naïve café — ΟΔΟΣ हिन्दी 北京 \x1c\x85\xa0 ﬁn",
]
KINDS: list[Kind] = ["whitespace", "words", "bpe"]
anything = st.text(st.characters(exclude_categories=["Cs"]))
near_special = st.lists(st.sampled_from(["<pad>", "<s>", "</s>", "<unk>", "the", " ", "\x1d"]))


def trained(kind: Kind, **options) -> Tokenizer:
    size = options.pop("vocabulary_size", 300 if kind == "bpe" else None)
    return Tokenizer.train(TEXTS, kind, size, **options)


TRAINED = {kind: trained(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(anything | near_special.map("".join), max_size=5))
def test_the_fast_path_equals_the_wrapped_tokenizer(kind: Kind, texts: list[str]) -> None:
    tokenizer = TRAINED[kind]
    encoded = tokenizer.encode_batch(texts)
    assert encoded == [tokenizer.wrapped.encode(text).ids for text in texts]
    assert encoded == [tokenizer.encode(text) for text in texts]
    flat, lengths = tokenizer.encode_flat(texts)
    assert flat.tolist() == [i for ids in encoded for i in ids]
    assert lengths.tolist() == [len(ids) for ids in encoded]
    assert not np.isin(flat, [PAD, BOS, EOS]).any()


@given(anything)
def test_whitespace_round_trip_up_to_spaces(text: str) -> None:
    tokenizer = Tokenizer.train([text, "x"], "whitespace", None)
    words = ["<unk>" if word in SPECIAL_TOKENS else word for word in text.split()]
    assert tokenizer.decode(tokenizer.encode(text)) == " ".join(words)


@given(anything)
def test_bpe_round_trip_is_exact(text: str) -> None:
    assert TRAINED["bpe"].decode(TRAINED["bpe"].encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_save_and_load(kind: Kind, tmp_path: Path) -> None:
    tokenizer = TRAINED[kind]
    tokenizer.save(tmp_path / "tokenizer.json")
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.kind == kind
    assert loaded.tokens == tokenizer.tokens
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [plain.encode(text).ids for text in TEXTS] == tokenizer.encode_batch(TEXTS)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_come_first(kind: Kind) -> None:
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)
    assert tuple(TRAINED[kind].tokens[:4]) == SPECIAL_TOKENS
    assert TRAINED[kind].decode([BOS, EOS, PAD]) == ""


def test_the_written_unknown_word_is_the_unknown_token() -> None:
    assert TRAINED["whitespace"].encode("a <unk> zebra")[1:] == [UNK, UNK]
    yahoo = Tokenizer.train(["what is _UNK ?"], "whitespace", None, unk_token="_UNK")
    assert yahoo.encode("_UNK <unk> is")[:2] == [UNK, UNK]
    assert yahoo.decode(yahoo.encode("what is zebra")) == "what is _UNK"
    again = Tokenizer.from_json(yahoo.to_json())
    assert again.encode("_UNK <s>") == [UNK, UNK]


def test_words_lower_cases_and_separates_punctuation() -> None:
    tokenizer = TRAINED["words"]
    assert tokenizer.decode(tokenizer.encode("THE dog didn't... ran!")) == (
        "the dog didn't . . . ran !"
    )


def test_vocabulary_limits_and_ties() -> None:
    texts = ["b a c", "c b d"]
    assert Tokenizer.train(texts, "whitespace", None).tokens[4:] == ["b", "c", "a", "d"]
    assert Tokenizer.train(texts[::-1], "whitespace", None).tokens[4:] == ["b", "c", "a", "d"]
    assert Tokenizer.train(texts, "whitespace", 7).tokens[4:] == ["b", "c", "a"]
    assert Tokenizer.train(texts, "whitespace", None, min_count=2).tokens[4:] == ["b", "c"]


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_in_another_process(kind: Kind) -> None:
    program = (
        "import json, sys; from uncollapse.data.tokenizer import Tokenizer;"
        "texts, kind, size = json.loads(sys.argv[1]);"
        "print(Tokenizer.train(iter(texts), kind, size).fingerprint)"
    )
    arguments = json.dumps([TEXTS, kind, 300 if kind == "bpe" else None])
    command = [sys.executable, "-c", program, arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == TRAINED[kind].fingerprint


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("whitespace", {"vocabulary_size": 4}, "vocabulary_size must be at least 5"),
        ("bpe", {"vocabulary_size": 100}, "vocabulary_size must be at least 260"),
        ("bpe", {"vocabulary_size": None}, "needs a vocabulary_size"),
        ("words", {"min_count": 0}, "min_count must be at least 1"),
        ("words", {"min_count": 99}, "at least 99 times"),
        ("whitespace", {"unk_token": "a b"}, "one word"),
        ("whitespace", {"unk_token": ""}, "one word"),
        ("whitespace", {"unk_token": "</s>"}, "special token"),
        ("whitespaces", {}, "did you mean 'whitespace'"),
    ],
)
def test_bad_settings(kind: Kind, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        trained(kind, **options)


def test_no_words_to_learn_from() -> None:
    with pytest.raises(UserError, match="no words"):
        Tokenizer.train(["", "  "], "whitespace", None)


def alien() -> str:
    model = tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a")
    return tokenizers.Tokenizer(model).to_str()


def renumbered() -> str:
    content = json.loads(TRAINED["whitespace"].to_json())
    content["model"]["vocab"]["cat"] = 1000
    return json.dumps(content)


def other_splitting() -> str:
    content = json.loads(TRAINED["whitespace"].to_json())
    content["pre_tokenizer"] = {"type": "BertPreTokenizer"}
    return json.dumps(content)


DAMAGED = {
    "cut": TRAINED["bpe"].to_json()[:-50],
    "empty": "",
    "no object": "[]",
    "alien": alien(),
    "renumbered": renumbered(),
    "other splitting": other_splitting(),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_or_alien_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")
