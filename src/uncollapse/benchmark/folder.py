"""The folder of a comparison, which belongs to that one: same data, same recipes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from uncollapse import saving
from uncollapse.benchmark.measuring import Measurement
from uncollapse.config import Recipe
from uncollapse.data.sources import Rows
from uncollapse.errors import RunError, UserError
from uncollapse.loading import Data
from uncollapse.recipes import load_recipe

FORMAT_VERSION = 1
SETTINGS = "settings.json"
SETTING_NAMES = {
    "samples": "number of samples",
    "generated": "number of generated sentences",
    "vectors": "word vectors",
    "label_column": "label column",
    "metrics": "metrics",
}


def settings_of(given: Mapping[str, Data | None], wanted: Measurement) -> dict[str, Any]:
    """What all runs of a comparison share, in the form in which a file gives it back.

    Parameters
    ----------
    given : mapping
        Data by name: ``train``, ``validation``, ``test``.
    wanted : Measurement
    """
    settings = {name: _fingerprint(data) for name, data in given.items()}
    settings |= json.loads(json.dumps(asdict(wanted)))
    if wanted.vectors is not None:  # whatever folder they are found in
        path = Path(wanted.vectors)
        settings["vectors"] = f"{path.name}, {path.stat().st_size} bytes"
    return settings


def check_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder of something else, or of a comparison with other settings.

    Raises
    ------
    UserError
    RunError
        If its settings are damaged.
    """
    path = out / SETTINGS
    if not path.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} exists already and is no comparison; choose another folder")
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise RunError(f"{path} is damaged: not the settings of a comparison") from None
    changed = [name for name, value in settings.items() if before.get(name) != value]
    if changed:
        names = " and ".join(SETTING_NAMES.get(name, f"{name} data") for name in changed)
        raise UserError(f"{out} is a comparison with other {names}; choose another folder")


def check_recipe(folder: Path, recipe: Recipe) -> None:
    """Refuse the folder of a run with another recipe; one without a run is fine.

    Raises
    ------
    UserError
        Naming the keys that differ.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        return
    before, now = _flat(load_recipe(path).model_dump()), _flat(recipe.model_dump())
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        raise UserError(
            f"{folder} is a run with another {', '.join(changed[:3])}"
            f"{', …' if len(changed) > 3 else ''}; choose another folder"
        )


def clear_unbegun(folder: Path, *others: str) -> None:
    """Take away what a run that died before its first batch has left: it would be in the way.

    Parameters
    ----------
    folder : Path
    *others : str
        Further files of such a run.
    """
    for name in ("recipe.yaml", "tokenizer.json", saving.CLASSES, *others):
        (folder / name).unlink(missing_ok=True)


def start(out: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder, and let it say what it is.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out}: {error.strerror}") from None
    text = json.dumps({"format_version": FORMAT_VERSION, **settings}, indent=1)
    saving.write_text(out / SETTINGS, text + "\n")


def _fingerprint(data: Data | None) -> str | None:
    if data is None or isinstance(data, str | Path):
        return None if data is None else Rows(data).identity()
    return f"list:{hashlib.sha256(json.dumps(list(data), default=str).encode()).hexdigest()}"


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {path: values}
    pairs = (_flat(below, f"{path}.{key}".lstrip(".")) for key, below in values.items())
    return {key: value for pair in pairs for key, value in pair.items()}
