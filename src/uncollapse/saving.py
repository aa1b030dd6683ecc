"""The saved folder of a model: written whole, checked on reading, never executed.

``config.json`` (format version and hashes), ``recipe.yaml``, ``model.safetensors``,
``tokenizer.json``, ``metrics.json`` and ``README.md``; ``labels.json`` with the classes by
column where labels supervise. A run folder is a saved folder in which training has also left
its history and, under ``training/``, its state.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uncollapse import __version__
from uncollapse.config import Recipe
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.errors import RunError, UserError
from uncollapse.recipes import load_recipe, recipe_to_yaml

if TYPE_CHECKING:
    from uncollapse.model import Model

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
CLASSES = "labels.json"


def start_run(
    folder: Path,
    recipe: Recipe,
    tokenizer: Tokenizer,
    facts: Mapping[str, Any],
    classes: Mapping[str, list[str]] | None = None,
) -> None:
    """Make a run folder with all that is known before training.

    Parameters
    ----------
    folder : Path
        Must not exist, or be empty.
    recipe, tokenizer
        Of the model.
    facts : mapping
        What the run is made from (data, seed, …); a resumed run must agree with them.
    classes : mapping, optional
        By column of labels, its classes in the order of their numbers.

    Raises
    ------
    UserError
        If the folder holds anything.
    RunError
        If it cannot be written.
    """
    require_empty(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {folder}: {error.strerror}") from None
    write_text(folder / "recipe.yaml", recipe_to_yaml(recipe))
    write_text(folder / "tokenizer.json", tokenizer.to_json())
    files = ["recipe.yaml", "tokenizer.json"]
    if classes:
        text = json.dumps(dict(classes), indent=1, ensure_ascii=False)
        write_text(folder / CLASSES, text + "\n")
        files.append(CLASSES)
    _write_config(folder, facts, files, finished=False)


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds anything: nothing is ever overwritten.

    Raises
    ------
    UserError
        If there is a file of that name, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already; choose another folder, or resume the run in it")


def check_resumable(
    folder: Path,
    recipe: Recipe,
    facts: Mapping[str, Any],
    classes: Mapping[str, list[str]] | None = None,
) -> None:
    """Refuse to resume a run that was made from something else.

    Raises
    ------
    UserError
        If there is no run, or if it differs; the line names what differs.
    """
    config = read_config(folder)
    before = load_recipe(folder / "recipe.yaml").model_dump()
    now = recipe.model_dump()
    if before["name"] != now["name"]:  # then most keys differ
        raise UserError(
            f"{folder} is a run of recipe {before['name']}, not {now['name']}; cannot resume it"
        )
    # a longer run is still the same run, and so is one that is pictured more often
    for values in (before, now):
        for key in ("max_epochs", "snapshots"):
            values["training"].pop(key)
    changed = sorted(_differences(before, now, ""))
    changed += [key for key, value in facts.items() if config["run"].get(key) != value]
    if not changed and read_classes(folder) != dict(classes or {}):
        changed = ["set of classes"]
    if changed:
        raise UserError(f"{folder} is a run with another {', '.join(changed)}; cannot resume it")


def finish_run(folder: Path, model: Model, metrics: Mapping[str, Any], card: str) -> None:
    """Add the trained weights, the figures and the model card; ``config.json`` comes last."""
    from safetensors.torch import save_model

    temporary = folder / f".{WEIGHTS}.tmp"
    try:
        save_model(model, str(temporary))
        _sync(temporary)
        temporary.replace(folder / WEIGHTS)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {folder / WEIGHTS}: {error.strerror or error}") from None
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    write_text(folder / "README.md", card)
    config = read_config(folder)
    files = dict.fromkeys([*config["files"], WEIGHTS])
    _write_config(folder, config["run"], files, finished=True)


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Replace the figures of a finished run."""
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a whole trained model."""
    return (folder / "config.json").is_file() and bool(read_config(folder)["finished"])


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check ``config.json``.

    Raises
    ------
    UserError
        If there is no run, or one of a newer format.
    RunError
        If the file is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        if folder.is_dir():
            raise UserError(f"{folder} is not a run folder: no config.json")
        if folder.exists():
            raise UserError(f"{folder} is a file, not a run folder")
        raise UserError(f"{folder} does not exist{_nearest(folder)}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version = int(config["format_version"])
        if not {"run", "finished", "files"} <= config.keys():
            raise KeyError("files")
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise RunError(f"{path} is damaged: not the configuration of a run") from None
    if version > FORMAT_VERSION:
        raise UserError(
            f"{folder} has format version {version}, and uncollapse {__version__} reads up to "
            f"{FORMAT_VERSION}; install a newer uncollapse"
        )
    return config


def read_model(folder: Path) -> tuple[Model, Recipe, Tokenizer]:
    """Load a trained model. No code of the folder is executed.

    Raises
    ------
    UserError
        If there is no model, or its training has not finished.
    RunError
        If a file is missing, truncated or altered; the line names it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    from uncollapse.model import Model

    config = read_config(folder)
    if not config["finished"]:
        raise UserError(f"the training of {folder} has not finished; go on with --resume")
    for name in config["files"]:
        _check_file(folder, name, config)
    recipe = load_recipe(folder / "recipe.yaml")
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    model = Model(recipe, len(tokenizer))
    try:
        load_model(model, str(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise RunError(f"{folder / WEIGHTS} does not fit its recipe: {first}") from None
    return model.eval(), recipe, tokenizer


def read_classes(folder: Path) -> dict[str, list[str]]:
    """The classes by column of labels, in the order of their numbers; none without labels.

    Raises
    ------
    UserError
        If there is no run.
    RunError
        If the file is missing or altered.
    """
    config = read_config(folder)
    if CLASSES not in config["files"]:
        return {}
    _check_file(folder, CLASSES, config)
    return json.loads((folder / CLASSES).read_text(encoding="utf-8"))


def read_history(folder: Path) -> list[dict[str, Any]]:
    """One row an epoch, as training has kept it; none in a saved model that is no run.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    path = folder / "history.jsonl"
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError:
        raise RunError(f"{path} is damaged: not the history of a run") from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    RunError
        If the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def _check_file(folder: Path, name: str, config: Mapping[str, Any]) -> None:
    path = folder / name
    if not path.is_file():
        raise RunError(f"{path} is missing")
    if _sha256(path) != config["files"][name]:
        raise RunError(f"{path} is damaged: its content is not what was saved")


def _write_config(
    folder: Path, run: Mapping[str, Any], files: Iterable[str], *, finished: bool
) -> None:
    config = {
        "format_version": FORMAT_VERSION,
        "uncollapse": __version__,
        "finished": finished,
        "run": dict(run),
        "files": {name: _sha256(folder / name) for name in files},
    }
    write_text(folder / "config.json", json.dumps(config, indent=1) + "\n")


def _nearest(folder: Path) -> str:
    runs = {str(found.parent) for found in folder.parent.glob("*/config.json")}
    close = get_close_matches(str(folder), runs, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _differences(before: Any, now: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        pairs = [(before.get(key), now.get(key), f"{path}.{key}".lstrip(".")) for key in keys]
        return [found for pair in pairs for found in _differences(*pair)]
    return [] if before == now else [path]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
