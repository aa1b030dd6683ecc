"""Runs side by side on several GPUs, of which there need not be any here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType

import pytest
import torch

from uncollapse.jobs.gpus import VISIBLE, Gpus, visible_gpus
from uncollapse.jobs.running import run_side_by_side

# a run that writes which GPUs it sees once as many as it waits for are running
PROBE = """
import os
import time
from dataclasses import dataclass
from pathlib import Path

from uncollapse.jobs.job import Job


class Seen(str):
    def value(self, name):
        return None


@dataclass(frozen=True)
class Probe(Job):
    name: str
    folder: Path
    together: int
    device: str

    @property
    def log(self):
        return Path(self.name)

    def describe(self):
        return self.name

    def finished(self):
        path = self.folder / self.name
        return Seen(path.read_text()) if path.exists() else None

    def do(self):
        (self.folder / f"begun-{self.name}").touch()
        end = time.monotonic() + 60
        while len(list(self.folder.glob("begun-*"))) < self.together and time.monotonic() < end:
            time.sleep(0.01)
        (self.folder / self.name).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
        return self.finished()
"""

Pretend = Callable[[int, str | None], None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """As if so many GPUs were here, the environment naming them."""

    def there_are(count: int, named: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.delenv(VISIBLE, raising=False)
        if named is not None:
            monkeypatch.setenv(VISIBLE, named)

    return there_are


@pytest.fixture
def probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that the processes of the runs find too."""
    (tmp_path / "gpu_probes.py").write_text(PROBE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module("gpu_probes")


@pytest.mark.parametrize(
    ("count", "named", "found"),
    [
        (3, None, ["0", "1", "2"]),
        (2, "5, 3", ["5", "3"]),
        (1, "GPU-8932f937,GPU-nowhere", ["GPU-8932f937"]),
        (0, "", []),
        (0, None, []),
    ],
)
def test_gpus_are_those_that_this_process_sees(
    pretend: Pretend, count: int, named: str | None, found: list[str]
) -> None:
    pretend(count, named)
    assert visible_gpus() == found


def test_runs_side_by_side_share_only_when_they_must() -> None:
    gpus = Gpus(["0", "2", "5"], 7)
    with ExitStack() as held:
        names = [held.enter_context(gpus.lent("auto"))[VISIBLE] for _ in range(7)]
    assert [names.count(name) for name in ("0", "2", "5")] == [3, 2, 2]
    assert set(names[:3]) == {"0", "2", "5"}
    gpus = Gpus(["0", "1"], 2)
    with gpus.lent("cuda") as first, gpus.lent("auto") as second:
        assert {first[VISIBLE], second[VISIBLE]} == {"0", "1"}
    with pytest.raises(RuntimeError), gpus.lent("auto") as first:
        raise RuntimeError  # it is given back all the same
    with gpus.lent("auto") as second, gpus.lent("auto") as third:
        assert {second[VISIBLE], third[VISIBLE]} == {"0", "1"}


@pytest.mark.parametrize("device", ["cpu", "cuda:0", "cuda:1"])
def test_a_device_that_is_named_stays(device: str) -> None:
    gpus = Gpus(["0", "1"], 1)
    with gpus.lent(device) as one, gpus.lent(device) as other:
        assert one == other == {}


def test_a_single_gpu_is_nothing_to_choose_from() -> None:
    for names in ([], ["3"]):
        gpus = Gpus(names, 2)
        with gpus.lent("auto") as one, gpus.lent("cuda") as other:
            assert one == other == {}


def test_each_process_sees_a_gpu_of_its_own(
    pretend: Pretend, probes: ModuleType, tmp_path: Path
) -> None:
    pretend(2, "4,7")
    tasks = [probes.Probe(name, tmp_path, 2, "auto") for name in "ab"]
    said: list[str] = []
    outcomes = run_side_by_side(tasks, 2, tmp_path / "out", said.append)
    assert said[0] == "2 runs to do, 2 at a time on 2 GPUs"
    assert {outcome.record for outcome in outcomes} == {"4", "7"}


def test_what_a_user_names_is_seen_as_it_was(
    pretend: Pretend, probes: ModuleType, tmp_path: Path
) -> None:
    pretend(2, "4,7")
    said: list[str] = []
    tasks = [probes.Probe(name, tmp_path, 1, name) for name in ("cpu", "cuda:1")]
    outcomes = run_side_by_side(tasks, 1, tmp_path / "out", said.append)
    assert said[0] == "2 runs to do, 1 at a time"
    assert [outcome.record for outcome in outcomes] == ["4,7", "4,7"]
