"""Clusters as they are shown: in a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from uncollapse.evaluation.codes import write_code
from uncollapse.evaluation.metric import Metric

WIDTH = 100  # columns of a terminal
NARROWEST = 10  # of them, for a code


@dataclass(frozen=True)
class Cluster:
    """Sentences whose most probable code is the same.

    Attributes
    ----------
    code : tuple of int
        Of one index, or of all.
    size, share
        Sentences, and of all.
    typical : list of str
        Sentences in the middle of it; see `find_clusters`.
    confident : list of (str, float)
        Those whose q(code|x) is highest, with it.
    words : list of str
        More frequent here than elsewhere.
    labels : dict of str to int
        How many of its sentences have which label, most frequent first.
    suggestion : str
        A name from label or words, which no other cluster has.
    name : str or None
        The one that a person gave.
    """

    code: tuple[int, ...]
    size: int
    share: float
    typical: list[str]
    confident: list[tuple[str, float]]
    words: list[str]
    labels: dict[str, int]
    suggestion: str
    name: str | None

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON; the code as it is written."""
        confident = [{"text": text, "probability": share} for text, share in self.confident]
        return asdict(self) | {"code": write_code(self.code), "confident": confident}

    def lines(self, width: int) -> list[str]:
        """What there is to say about it, for a terminal; its code is ``width`` columns wide."""
        name = f"({self.suggestion})" if self.name is None else self.name
        found = [f"{write_code(self.code):<{width}} {self.size:>8,} {self.share:>6.1%}  {name}"]
        found += _item("words", [", ".join(self.words)] if self.words else [])
        labels = ", ".join(f"{label} {count:,}" for label, count in self.labels.items())
        found += _item("labels", [labels] if labels else [])
        found += _item("typical", self.typical)
        found += _item("confident", [f"{share:.2f} {text}" for text, share in self.confident])
        return found


@dataclass(frozen=True)
class Clusters:
    """The clusters that one discrete variable makes of a corpus.

    Attributes
    ----------
    variable : str
    index : int or None
        The one that was looked at; None: the joint code of all.
    sentences : int
    clusters : list of Cluster
        Largest first, none without a sentence.
    empty : int
        Codes that no sentence has.
    agreement : dict of str to Metric
        With the labels of the sentences; empty without any.
    """

    variable: str
    index: int | None
    sentences: int
    clusters: list[Cluster]
    empty: int
    agreement: dict[str, Metric]

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {
            "variable": self.variable,
            "index": self.index,
            "sentences": self.sentences,
            "empty": self.empty,
            "agreement": {name: metric.to_dict() for name, metric in self.agreement.items()},
            "clusters": [cluster.to_dict() for cluster in self.clusters],
        }

    def to_text(self) -> str:
        """For a terminal, at most 100 columns wide; names that are suggestions in brackets."""
        used = len(self.clusters)
        indexes = len(self.clusters[0].code)
        where = "all indexes together" if self.index is None else f"index {self.index}"
        what = self.variable if indexes == 1 and self.index is None else f"{self.variable}, {where}"
        codes = f"{used:,} of {used + self.empty:,} codes"
        lines = [f"{what}: {codes} in use by {self.sentences:,} sentences"]
        lines += [f"{name:<20}  {metric.format()}" for name, metric in self.agreement.items()]
        width = max(NARROWEST, *(len(write_code(cluster.code)) for cluster in self.clusters))
        lines += ["", f"{'code':<{width}} {'size':>8} {'share':>6}  name"]
        for cluster in self.clusters:
            lines += ["", *cluster.lines(width)]
        return "\n".join(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines)


def _item(what: str, values: Sequence[str]) -> list[str]:
    """Lines of one thing, its name before the first."""
    return [f"  {what if place == 0 else '':<10}{value}" for place, value in enumerate(values)]
