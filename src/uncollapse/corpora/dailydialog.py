"""DailyDialog (Li et al. 2017) as dialogues a line, from the archives that hold it.

Archives are read member by member into memory and never unpacked, so that nothing in them can
be written anywhere.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uncollapse.corpora.registry import SPLITS, Archive
from uncollapse.data.records import END_OF_UTTERANCE
from uncollapse.errors import RunError

Dialogue = dict[str, Any]

TOPICS = (
    "Ordinary Life",
    "School Life",
    "Culture & Education",
    "Attitude & Emotion",
    "Relationship",
    "Tourism",
    "Health",
    "Work",
    "Politics",
    "Finance",
)
ACTS = ("inform", "question", "directive", "commissive")
EMOTIONS = ("no emotion", "anger", "disgust", "fear", "happiness", "sadness", "surprise")

# as the release numbers them
_TOPIC = dict(enumerate(TOPICS, 1))
_ACT = dict(enumerate(ACTS, 1))
_EMOTION = dict(enumerate(EMOTIONS))

# ParlAI's names of topics; one is misspelt there
_PARLAI_TOPICS = dict(
    zip(
        (
            "ordinary_life", "school_life", "culture_and_educastion", "attitude_and_emotion",
            "relationship", "tourism", "health", "work", "politics", "finance",
        ),
        TOPICS,
        strict=True,
    )
)  # fmt: skip
_LARGEST = 64 << 20  # bytes of a member; those of the real archives have at most a few million


def read_dailydialog(file: Path, archive: Archive) -> dict[str, list[Dialogue]]:
    """All dialogues by split, in the order of the release.

    Parameters
    ----------
    file : Path
    archive : Archive
        What it is.

    Raises
    ------
    RunError
        If it is damaged, or not of its form.
    """
    reader = {"dailydialog-text": _from_text, "dailydialog-json": _from_json}[archive.format]
    try:
        return {split: list(dialogues) for split, dialogues in reader(file)}
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise RunError(f"{file} is damaged: {error}") from None
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{file} has not the form of {archive.name}: {error}") from None


def _from_text(file: Path) -> Iterator[tuple[str, Iterator[Dialogue]]]:
    """The release: an archive a split inside, texts, acts and emotions in three files."""
    with zipfile.ZipFile(file) as whole:
        topics = _topics(
            _member(whole, "dialogues_text.txt"), _member(whole, "dialogues_topic.txt")
        )
        for split in SPLITS:
            with zipfile.ZipFile(io.BytesIO(_member(whole, f"{split}.zip"))) as part:
                texts, acts, emotions = (
                    _lines(_member(part, f"dialogues_{kind}{split}.txt"))
                    for kind in ("", "act_", "emotion_")
                )
            yield split, _joined(split, texts, acts, emotions, topics)


def _joined(
    split: str, texts: list[str], acts: list[str], emotions: list[str], topics: dict[str, str]
) -> Iterator[Dialogue]:
    for number, (text, act, emotion) in enumerate(zip(texts, acts, emotions, strict=True)):
        utterances = text.split(END_OF_UTTERANCE)[:-1]
        labels = [(_ACT[int(a)], _EMOTION[int(e)]) for a, e in _pairs(act, emotion)]
        if len(utterances) != len(labels) or not labels:
            raise ValueError(
                f"dialogue {number + 1} of {split} has {len(utterances)} utterances and "
                f"{len(labels)} labels"
            )
        turns = zip(utterances, labels, strict=True)
        yield _dialogue(split, number, topics.get(_key(text)), ((u, *pair) for u, pair in turns))


def _pairs(acts: str, emotions: str) -> Iterator[tuple[str, str]]:
    return zip(acts.split(), emotions.split(), strict=True)


def _topics(texts: bytes, numbers: bytes) -> dict[str, str]:
    """The topic of each text; that which it has most often, where it occurs with several."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for text, number in zip(_lines(texts), _lines(numbers), strict=False):
        counts[_key(text)][_TOPIC[int(number)]] += 1
    return {text: count.most_common(1)[0][0] for text, count in counts.items()}


def _key(text: str) -> str:
    """A dialogue without ends of utterances, of which one is missing in one of the files."""
    return "".join(text.replace(END_OF_UTTERANCE, " ").split())


def _from_json(file: Path) -> Iterator[tuple[str, Iterator[Dialogue]]]:
    """ParlAI's copy: a file a split, a JSON object a dialogue."""
    with tarfile.open(file, "r:gz") as whole:
        members = {Path(member.name).name: member for member in whole if member.isfile()}
        for split in SPLITS:
            name = f"{'valid' if split == 'validation' else split}.json"
            source = whole.extractfile(members[name])
            if source is None:
                raise KeyError(name)
            yield split, _parsed(split, _lines(source.read(_LARGEST)))


def _parsed(split: str, lines: list[str]) -> Iterator[Dialogue]:
    for number, line in enumerate(lines):
        record = json.loads(line)
        turns = ((t["text"], t["act"], t["emotion"].replace("_", " ")) for t in record["dialogue"])
        yield _dialogue(split, number, _PARLAI_TOPICS[record["topic"]], turns)


def _dialogue(
    split: str, number: int, topic: str | None, turns: Iterator[tuple[str, str, str]]
) -> Dialogue:
    """A dialogue as it is kept; who speaks is not marked, but they take turns."""
    return {
        "id": f"dailydialog-{split}-{number}",
        **({"topic": topic} if topic is not None else {}),
        "turns": [
            {"speaker": "AB"[place % 2], "text": " ".join(text.split()), "act": a, "emotion": e}
            for place, (text, a, e) in enumerate(turns)
        ],
    }


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of the file of this name, in whatever folder; KeyError if there is none."""
    for member in archive.infolist():
        path = Path(member.filename)
        if path.name == name and "__MACOSX" not in path.parts and not member.is_dir():
            with archive.open(member) as source:
                return source.read(_LARGEST)
    raise KeyError(name)


def _lines(content: bytes) -> list[str]:
    r"""Lines that are not empty; ended by ``\n`` alone, whatever else a text may hold."""
    return [line for line in content.decode("utf-8").split("\n") if line.strip()]
