"""Checkpoints that are whole or absent.

A checkpoint is a folder. Its files are written into a temporary folder and forced to the disk;
a manifest of their hashes is written last, and one rename makes the checkpoint exist. A
checkpoint whose files do not match its manifest is refused. ``torch.load`` runs with
``weights_only``, so that reading a checkpoint never executes code.

::

    training/best/model.safetensors               best weights, for inference only
    training/checkpoint-0000001315/state.pt       weights, optimisers, progress, random states
                                   best.safetensors    the best weights as of this checkpoint
                                   manifest.json
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from uncollapse.errors import RunError, UserError

FORMAT_VERSION = 2
STATE, BEST, MANIFEST = "state.pt", "best.safetensors", "manifest.json"


class CheckpointStore:
    """The resume state of one run.

    Parameters
    ----------
    folder : Path
        ``RUN/training``; made when something is first saved.
    keep : int
        How many checkpoints stay; the one before the last is there in case the last is damaged.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep
        self.best = folder / "best" / "model.safetensors"

    def existing(self) -> list[Path]:
        """Folders of the checkpoints, newest first."""
        return sorted(self.folder.glob("checkpoint-*"), reverse=True)

    def save(self, payload: Mapping[str, Any], batches_seen: int) -> Path:
        """Write one checkpoint and drop those beyond ``keep``.

        Raises
        ------
        RunError
            If the disk refuses; earlier checkpoints are untouched.
        """
        target = self.folder / f"checkpoint-{batches_seen:010d}"
        temporary = self.folder / f".writing-{target.name}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            torch.save(dict(payload), temporary / STATE)
            if self.best.exists():
                _link(self.best, temporary / BEST)
            for path in temporary.iterdir():
                _sync(path)
            (temporary / MANIFEST).write_text(_manifest(temporary), encoding="utf-8")
            _sync(temporary / MANIFEST)
            _sync(temporary)
            temporary.rename(target)
            _sync(self.folder)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise RunError(f"cannot write checkpoint {target}: {_reason(error)}") from error
        for old in self.existing()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)  # a failing delete must not stop a run
        return target

    def load(self) -> dict[str, Any] | None:
        """Read the newest whole checkpoint, and put its best weights back in their place.

        A damaged one is renamed ``damaged-…`` and named on stderr; the one before it is used.

        Returns
        -------
        dict or None
            The payload that was saved; None if there is no checkpoint at all.

        Raises
        ------
        RunError
            If checkpoints exist and none is whole.
        """
        damage: RunError | None = None
        for path in self.existing():
            try:
                payload = _read(path)
            except RunError as error:
                damage = damage or error
                print(f"uncollapse: {error}; looking for an earlier one", file=sys.stderr)
                continue
            if damage is not None:
                self._set_aside_after(path)
                print(f"uncollapse: going on from {path}", file=sys.stderr)
            if (path / BEST).exists():
                self.best.parent.mkdir(parents=True, exist_ok=True)
                _link(path / BEST, self.best.with_suffix(".tmp"))
                self.best.with_suffix(".tmp").replace(self.best)
            return payload
        if damage is not None:
            raise damage
        return None

    def save_best(self, model: nn.Module) -> None:
        """Replace the best weights, in one rename.

        Raises
        ------
        RunError
            If the disk refuses; the previous best weights stay.
        """
        temporary = self.best.with_suffix(".tmp")
        try:
            self.best.parent.mkdir(parents=True, exist_ok=True)
            # a new file each time: checkpoints hold hard links to the former one
            temporary.unlink(missing_ok=True)
            save_model(model, str(temporary))
            _sync(temporary)
            temporary.replace(self.best)
            _sync(self.best.parent)
        except (OSError, RuntimeError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            raise RunError(f"cannot write {self.best}: {_reason(error)}") from error

    def load_best(self, model: nn.Module) -> None:
        """Put the best weights into ``model``, on whatever device it is."""
        try:
            load_model(model, self.best)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunError(f"cannot read {self.best}: {_reason(error)}") from error

    def _set_aside_after(self, whole: Path) -> None:
        for path in self.existing():
            if path.name > whole.name:
                aside = path.with_name(f"damaged-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)


def _read(folder: Path) -> dict[str, Any]:
    """Check a checkpoint against its manifest and load it."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, str] = manifest["sha256"]
        version = manifest["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"damaged checkpoint: {folder / MANIFEST} cannot be read") from error
    if version != FORMAT_VERSION:
        # not damage: an earlier checkpoint must not quietly take its place
        raise UserError(f"{folder} has format {version}; this version reads {FORMAT_VERSION}")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            raise RunError(f"damaged checkpoint: {path} does not match its manifest")
    try:
        return torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises pickle, zip, runtime and key errors alike
        raise RunError(f"damaged checkpoint: {folder / STATE} cannot be read") from error


def _manifest(folder: Path) -> str:
    hashes = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    return json.dumps({"format_version": FORMAT_VERSION, "sha256": hashes}, indent=1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, target: Path) -> None:
    """Hard link, or a copy where the file system has none."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    """Force a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0]
