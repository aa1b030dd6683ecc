"""What was measured of one run, as a small file of its own that cannot be altered unnoticed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uncollapse import __version__
from uncollapse.errors import RunError
from uncollapse.saving import write_text

FORMAT_VERSION = 1
RECORD = "measured.json"
KEPT_HISTORY = ("kl", "mi", "active_units", "elbo", "cosine", "variance", "mi_c", "reconstruction")


@dataclass(frozen=True)
class Record:
    """One system trained on one corpus with one seed, and measured.

    Attributes
    ----------
    preset : str
        ``small`` or ``paper``.
    edition : str
        The corpus as it is here, e.g. ``yahoo-resplit``; ``NAME:dialogues`` if read as such.
    system : str
        The recipe's name, with what a table keeps changed: ``bn-vae,scale=0.6``.
    recipe : str
        As it was loaded, e.g. ``bn-vae@yahoo``.
    changes : list of str
        All that differs from the recipe.
    seed : int
    metrics : dict
        By name, a `Metric` as a dictionary.
    cost : dict
        ``seconds`` and ``cpu_seconds`` of the training, ``seconds_to_best`` and ``updates_to_best``
        until the epoch that was kept, ``epochs``, ``best_epoch``, ``updates`` (those of the encoder
        alone count), ``parameters``, ``peak_memory_mb``.
    history : list of dict
        Validation figures a finished epoch.
    environment : dict
        ``uncollapse``, ``commit``, ``torch``, ``hardware``, ``threads``, ``date``.
    protocol : dict
        ``data`` (how much of which files), their ``digest``, ``samples`` and ``generated``.
    """

    preset: str
    edition: str
    system: str
    recipe: str
    changes: list[str]
    seed: int
    metrics: dict[str, dict[str, Any]]
    cost: dict[str, float | None]
    history: list[dict[str, float]]
    environment: dict[str, Any]
    protocol: dict[str, Any] = field(default_factory=dict)

    def value(self, figure: str) -> float | None:
        """A figure or a cost; None where there is none."""
        if figure in self.cost:
            return self.cost[figure]
        return self.metrics.get(figure, {}).get("value")

    def save(self, folder: Path) -> None:
        """Write ``measured.json``, whole or not at all.

        Raises
        ------
        RunError
            If the disk refuses.
        """
        write_sealed(folder / RECORD, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> Record | None:
        """Read ``measured.json``; None if the run has not been measured.

        Raises
        ------
        RunError
            If the file is damaged, or was edited by hand.
        """
        path = folder / RECORD
        if not path.is_file():
            return None
        return cls.from_dict(read_sealed(path), path)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Path) -> Record:
        """A record from the content of a file.

        Raises
        ------
        RunError
            If something is missing.
        """
        try:
            return cls(**{one.name: values[one.name] for one in fields(cls)})
        except (KeyError, TypeError):
            raise RunError(f"{path} is damaged: its content is not a measured run") from None


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write values as JSON with a digest of themselves, so that an edit is noticed."""
    content = {"format_version": FORMAT_VERSION, **values}
    text = json.dumps({**content, "digest": _digest(content)}, indent=1, allow_nan=False)
    write_text(path, text + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises
    ------
    RunError
        If the file is damaged, of another format, or was edited by hand.
    """
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        digest = content.pop("digest")
        version = content["format_version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{path} is damaged: not a file of results; move it away") from None
    if version != FORMAT_VERSION:
        raise RunError(f"{path} has format version {version}, this program reads {FORMAT_VERSION}")
    if digest != _digest(content):
        raise RunError(
            f"{path} was edited by hand: its digest does not fit; move it away, and it is made anew"
        )
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def environment() -> dict[str, Any]:
    """Where and with what a figure is made."""
    import torch

    commit = None
    here = Path(__file__).resolve().parent
    if (here.parents[2] / ".git").exists():  # a source tree, not a package within another one
        asked = ["git", "-C", str(here), "describe", "--always", "--dirty", "--exclude=*"]
        with contextlib.suppress(OSError):  # no git
            commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip() or None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "uncollapse": __version__,
        "commit": commit,
        "torch": torch.__version__,
        "hardware": gpu or f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
    }


# --- many records as one file that can be committed ---------------------------------------------


def write_results(path: Path, records: Sequence[Record], command: str) -> None:
    """Write the records of one preset and edition as a file.

    What is the same in all of them, such as the definition of a figure, is written once.
    """
    shared: dict[str, dict[str, Any]] = {}
    rows = []
    for record in sorted(records, key=lambda r: (r.system, r.seed)):
        row = asdict(record)
        for name, metric in record.metrics.items():
            facts = {key: metric[key] for key in ("unit", "estimator", "samples", "definition")}
            known = shared.setdefault(name, facts)
            own = {key: fact for key, fact in facts.items() if fact != known[key]}
            value, error = metric["value"], metric["standard_error"]
            row["metrics"][name] = [_short(value), _short(error)] + ([own] if own else [])
        row["history"] = [
            {key: _short(value) for key, value in epoch.items()} for epoch in row["history"]
        ]
        rows.append(row)
    write_sealed_compact(path, {"command": command, "figures": shared, "records": rows})


def write_sealed_compact(path: Path, values: Mapping[str, Any]) -> None:
    """As `write_sealed`, a record a line, so that a change of one is one line of a diff."""
    content = {"format_version": FORMAT_VERSION, **values}
    head = {key: value for key, value in content.items() if key != "records"}
    head["digest"] = _digest(content)
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in content["records"])
    text = json.dumps(head, indent=1, allow_nan=False)
    write_text(path, f'{text[:-2]},\n "records": [\n{lines}\n ]\n}}\n')


def read_results(path: Path) -> list[Record]:
    """Read what `write_results` wrote.

    Raises
    ------
    RunError
        If the file is damaged, or was edited by hand.
    """
    content = read_sealed(path)
    if not {"records", "figures"} <= content.keys():
        raise RunError(f"{path} is a file of another kind: it holds no records of runs")
    found = []
    for row in content["records"]:
        metrics = {}
        for name, (value, error, *own) in row["metrics"].items():
            facts = {**content["figures"][name], **(own[0] if own else {})}
            metrics[name] = {"value": value, "standard_error": error, **facts}
        found.append(Record.from_dict({**row, "metrics": metrics}, path))
    return found


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
