"""Text to token ids and back; everything there is to know sits in one ``tokenizer.json``."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as WrappedTokenizer

from uncollapse.errors import UserError, unknown_name

PAD, UNK, BOS, EOS = range(4)
SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>")

Kind = Literal["whitespace", "words", "bpe"]

# Python counts the four separators \x1c-\x1f as white space, the regular expressions of
# `tokenizers` do not; they are spelled out so that both sides cut at the same places.
_SPACE = r"\s\x1c-\x1f"
_WORDS = re.compile(r"\w+(?:'\w+)*|[^\w\s]")


class _Vocabulary(dict[str, int]):
    """Word to id, where every word that is not there is the unknown word."""

    def __missing__(self, word: str) -> int:
        return UNK


class Tokenizer:
    """A trained tokenizer of one of three kinds, around a ``tokenizers.Tokenizer``.

    ``whitespace`` cuts at white space and keeps case; the unknown word written out in a text
    (``<unk>`` in the Penn Treebank) is the unknown token. ``words`` lower-cases and takes words
    and single punctuation marks. ``bpe`` is byte-level byte-pair encoding, which knows no
    unknown words. A text can never produce ``<pad>``, ``<s>`` or ``</s>``.

    Use :meth:`train`, :meth:`load` or :meth:`from_json`.
    """

    def __init__(self, wrapped: WrappedTokenizer, kind: Kind) -> None:
        self.wrapped = wrapped
        self.kind: Kind = kind
        ids = wrapped.get_vocab()
        self.tokens: list[str] = sorted(ids, key=ids.__getitem__)
        reserved = {self.tokens[PAD], self.tokens[BOS], self.tokens[EOS]}
        self._ids = _Vocabulary({token: i for token, i in ids.items() if token not in reserved})
        self._split = _splitter(kind)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        kind: Kind,
        vocabulary_size: int | None,
        min_count: int = 1,
        unk_token: str = "<unk>",
    ) -> Tokenizer:
        """Learn a vocabulary in one pass; memory grows with the distinct words only.

        Parameters
        ----------
        texts : iterable of str
            One sentence each; read once.
        kind : {"whitespace", "words", "bpe"}
        vocabulary_size : int or None
            At most this many tokens, the 4 special ones counted. None: no limit (not for bpe).
        min_count : int
            Rarer words (bpe: rarer merges) are left out.
        unk_token : str
            How the texts write the unknown word; it becomes the name of id 1.

        Raises
        ------
        UserError
            For settings out of range, and for texts without a word.
        """
        _check_settings(kind, vocabulary_size, min_count, unk_token)
        special = _special_tokens(unk_token)
        if kind == "bpe":
            wrapped = _train_bpe(texts, special, vocabulary_size or 0, min_count)
        else:
            wrapped = _train_words(texts, kind, special, vocabulary_size, min_count)
        return cls(wrapped, kind)

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without ``<s>`` and ``</s>``."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without ``<s>`` and ``</s>``."""
        if self._split is None:
            encodings = self.wrapped.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        look_up = self._ids.__getitem__
        return [list(map(look_up, self._split(text))) for text in texts]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts in one array, for speed.

        Returns
        -------
        ids : (sum of lengths,) uint32
        lengths : (len(texts),) int64
        """
        if self._split is None:
            pieces: list[Any] = self.encode_batch(texts)
            flat: Iterable[int] = chain.from_iterable(pieces)
        else:
            pieces = list(map(self._split, texts))
            flat = map(self._ids.__getitem__, chain.from_iterable(pieces))
        lengths = np.fromiter(map(len, pieces), np.int64, count=len(pieces))
        return np.fromiter(flat, np.uint32, count=int(lengths.sum())), lengths

    def decode(self, ids: Iterable[int]) -> str:
        """Text of some ids; ``<pad>``, ``<s>`` and ``</s>`` are dropped, unknown words stay."""
        kept = [i for i in map(int, ids) if i not in (PAD, BOS, EOS)]
        if self.kind == "bpe":
            return self.wrapped.decode(kept, skip_special_tokens=False)
        return " ".join([self.tokens[i] for i in kept])

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of :meth:`to_json`: equal tokenizers have equal fingerprints."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The text of ``tokenizer.json``, which ``tokenizers.Tokenizer`` reads as well."""
        return self.wrapped.to_str()

    @classmethod
    def from_json(cls, text: str, name: str = "tokenizer.json") -> Tokenizer:
        """Read back what :meth:`to_json` wrote; UserError (naming `name`) for anything else."""
        try:
            wrapped = WrappedTokenizer.from_str(text)
        except Exception as error:  # `tokenizers` raises nothing narrower
            raise UserError(f"{name} is damaged or no tokenizer ({error})") from None
        vocabulary = wrapped.get_vocab()
        tokens = sorted(vocabulary, key=vocabulary.__getitem__)
        numbered = [vocabulary[token] for token in tokens] == list(range(len(tokens)))
        if numbered and len(tokens) > len(SPECIAL_TOKENS):
            unk_token = tokens[UNK]
            if tokens[: len(SPECIAL_TOKENS)] == _special_tokens(unk_token):
                for kind in get_args(Kind):
                    if _structure(wrapped) == _structure(_pipeline(kind, unk_token)):
                        return cls(wrapped, kind)
        raise UserError(f"{name} is a tokenizer, but none that this package wrote")

    def save(self, path: str | Path) -> None:
        """Write ``tokenizer.json`` whole or not at all."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(self.to_json(), encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Read a ``tokenizer.json``; UserError when it is missing, damaged or alien."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot read the tokenizer {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"{path} is damaged or no tokenizer (not UTF-8)") from None
        return cls.from_json(text, name=str(path))


def _check_settings(kind: str, size: int | None, min_count: int, unk_token: str) -> None:
    if kind not in get_args(Kind):
        raise unknown_name("tokenizer", kind, get_args(Kind))
    # Byte-level encoding starts from one token for each of the 256 bytes.
    smallest = len(SPECIAL_TOKENS) + (256 if kind == "bpe" else 1)
    if size is None and kind == "bpe":
        raise UserError("a bpe tokenizer needs a vocabulary_size")
    if size is not None and size < smallest:
        raise UserError(f"vocabulary_size must be at least {smallest} for {kind}, not {size}")
    if min_count < 1:
        raise UserError(f"min_count must be at least 1, not {min_count}")
    if unk_token.split() != [unk_token]:
        raise UserError(f"unk_token must be one word without spaces, not {unk_token!r}")
    if unk_token in (SPECIAL_TOKENS[PAD], SPECIAL_TOKENS[BOS], SPECIAL_TOKENS[EOS]):
        raise UserError(f"unk_token must not be the special token {unk_token!r}")


def _special_tokens(unk_token: str) -> list[str]:
    return [SPECIAL_TOKENS[PAD], unk_token, *SPECIAL_TOKENS[BOS:]]


def _structure(wrapped: WrappedTokenizer) -> dict[str, Any]:
    """Everything in a ``tokenizer.json`` but what was learnt."""
    content = json.loads(wrapped.to_str())
    learnt = ("vocab", "merges")
    content["model"] = {k: v for k, v in content["model"].items() if k not in learnt}
    return content


def _pipeline(kind: Kind, unk_token: str) -> WrappedTokenizer:
    """The tokenizer of a kind, still without vocabulary; its structure tells the kind."""
    if kind == "bpe":
        wrapped = WrappedTokenizer(models.BPE())
        wrapped.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        wrapped.decoder = decoders.ByteLevel()
        return wrapped
    wrapped = WrappedTokenizer(models.WordLevel({}, unk_token=unk_token))
    if kind == "words":
        wrapped.normalizer = normalizers.Lowercase()
        pattern = Regex(rf"\w+(?:'\w+)*|[^\w{_SPACE}]")
        wrapped.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
        return wrapped
    # A text that spells out <pad>, <s> or </s> must not end or mask a sentence.
    reserved = "|".join((SPECIAL_TOKENS[PAD], SPECIAL_TOKENS[BOS], SPECIAL_TOKENS[EOS]))
    pattern = Regex(rf"(?<![^{_SPACE}])(?:{reserved})(?![^{_SPACE}])")
    wrapped.normalizer = normalizers.Replace(pattern, unk_token)
    wrapped.pre_tokenizer = pre_tokenizers.Split(Regex(f"[{_SPACE}]+"), behavior="removed")
    return wrapped


def _splitter(kind: Kind) -> Callable[[str], list[str]] | None:
    """Text to words in plain Python (several times faster than `tokenizers`); None for bpe."""
    if kind == "bpe":
        return None
    if kind == "whitespace":
        return str.split
    pipeline = _pipeline(kind, SPECIAL_TOKENS[UNK])
    normalizer: Any = pipeline.normalizer
    pre_tokenizer: Any = pipeline.pre_tokenizer

    def split(text: str) -> list[str]:
        if text.isascii():
            return _WORDS.findall(text.lower())
        # Beyond ASCII the two regular-expression engines differ (combining marks, final sigma).
        normal = normalizer.normalize_str(text)
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(normal)]

    return split


def _train_words(
    texts: Iterable[str], kind: Kind, special: list[str], size: int | None, min_count: int
) -> WrappedTokenizer:
    split = _splitter(kind)
    assert split is not None
    counts = Counter(chain.from_iterable(map(split, texts)))
    if not counts:
        raise UserError("the training text has no words to build a vocabulary from")
    frequent = [(-count, word) for word, count in counts.items() if count >= min_count]
    # Ties go by spelling, so that the vocabulary does not depend on the order of the corpus.
    words = [word for _, word in sorted(frequent) if word not in (*special, *SPECIAL_TOKENS)]
    words = words[: None if size is None else size - len(special)]
    if not words:
        raise UserError(f"no word of the training text occurs at least {min_count} times")
    unk_token = special[UNK]
    wrapped = _pipeline(kind, unk_token)
    vocabulary = {token: i for i, token in enumerate((*special, *words))}
    wrapped.model = models.WordLevel(vocabulary, unk_token=unk_token)
    return wrapped


def _train_bpe(
    texts: Iterable[str], special: list[str], size: int, min_count: int
) -> WrappedTokenizer:
    wrapped = _pipeline("bpe", special[UNK])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_count,
        special_tokens=special,  # pyright: ignore[reportArgumentType]
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    wrapped.train_from_iterator(texts, trainer)
    # The trainer also lists the special tokens as text to look out for. Without that list a
    # text that spells out "</s>" is encoded as any other text.
    content = json.loads(wrapped.to_str())
    content["added_tokens"] = []
    return WrappedTokenizer.from_str(json.dumps(content, ensure_ascii=False))
