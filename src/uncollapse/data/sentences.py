"""Records in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from uncollapse.data.records import Fields, Records
from uncollapse.errors import UserError

Sentence = str | Mapping[str, Any]
IN_MEMORY = "the list of sentences"  # what an error calls data without a file


class Sentences(Records):
    """Records in memory: bare texts, or mappings such as ``{"text": …, "emotion": …}``.

    Raises
    ------
    UserError
        While iterating, for what is no record, naming its number; at the end for a label column
        that no row has.
    """

    format = "list"

    def __init__(
        self,
        sentences: Iterable[Sentence],
        text_column: str = "text",
        label_columns: Sequence[str] = (),
    ) -> None:
        super().__init__(IN_MEMORY, text_column, label_columns)
        if isinstance(sentences, Mapping):
            raise UserError("data must be a list of sentences, not a mapping; give one a sentence")
        self._sentences = sentences

    def _read(self) -> Iterator[Fields]:
        self.line = 0
        for sentence in self._sentences:
            self.line += 1
            if isinstance(sentence, str):
                self._require_kind("text")
                self._require_characters(sentence)
                yield sentence, self._unlabelled
            elif isinstance(sentence, Mapping):
                yield from self._meet(sentence)
            else:
                raise UserError(f"{self._place()} is not text: {sentence!r}")
        if self.columns:
            self._require_labels()
        elif self.line and self.label_columns:
            keys = ", ".join(f'"{name}": …' for name in (self.text_column, *self.label_columns))
            wanted = ", ".join(self.label_columns)
            raise UserError(f"sentences without labels ({wanted}); give each as {{{keys}}}")

    def _place(self) -> str:
        return f"{'sentence' if self._kind in (None, 'text') else 'dialogue'} {self.line}"
