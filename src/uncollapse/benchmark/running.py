"""One run of a comparison: train or go on, measure, keep; in whatever process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uncollapse import saving
from uncollapse.benchmark.folder import check_recipe, clear_unbegun
from uncollapse.benchmark.measuring import Measurement, measure
from uncollapse.benchmark.plans import Plan
from uncollapse.benchmark.summary import RunSummary, TestSentences
from uncollapse.errors import RunError
from uncollapse.jobs.job import Job, locked
from uncollapse.loading import Data
from uncollapse.text_vae import TextVAE


def _to_log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class ComparedRun(Job):
    """A system with a seed. Whatever was finished before is kept.

    Attributes
    ----------
    plan : Plan
    seed : int
    folder : Path
        Of the trained model and its summary.
    train, validation, test : path, hub data set name or sequence of str
        ``validation`` may be None.
    sentences : TestSentences
        What is shown of the test data.
    wanted : Measurement
    device : str
    """

    plan: Plan
    seed: int
    folder: Path
    train: Data
    validation: Data | None
    test: Data
    sentences: TestSentences
    wanted: Measurement
    device: str

    @property
    def log(self) -> Path:
        """Its log, below the folder of the logs."""
        return Path(self.plan.folder, f"seed-{self.seed}.log")

    def describe(self) -> str:
        """E.g. ``bn-vae, seed 0``."""
        return f"{self.plan.name}, seed {self.seed}"

    def finished(self) -> RunSummary | None:
        """Its summary, if there is a whole one; what is wrong with another, `do` says."""
        try:
            return RunSummary.load(self.folder)
        except RunError:
            return None

    def do(self, *, progress: bool = False, say: Callable[[str], None] = _to_log) -> RunSummary:
        """Train and measure it, as far as that is not done yet.

        Parameters
        ----------
        progress : bool
            Show progress bars where stderr is a terminal.
        say : callable
            Gets a line for each step.
        """
        with locked(self.folder):
            summary = RunSummary.load(self.folder)
            if summary is not None:
                say(f"{self.describe()}: finished before")
                return summary
            vae = trained(self, progress, say)
            say(f"{self.describe()}: measuring")
            summary = measure(
                vae,
                self.plan.name,
                self.folder,
                self.train,
                self.test,
                sentences=self.sentences,
                wanted=self.wanted,
                device=self.device,
            )
            summary.save(self.folder)
            return summary


def trained(run: ComparedRun, progress: bool, say: Callable[[str], None]) -> TextVAE:
    """The trained model of a run: loaded, gone on with, or trained."""
    check_recipe(run.folder, run.plan.recipe)
    if saving.is_finished(run.folder):
        return TextVAE.from_pretrained(run.folder)
    resume = (run.folder / "config.json").is_file()
    if not resume and run.folder.is_dir():
        clear_unbegun(run.folder)
    say(f"{run.describe()}: {'resuming' if resume else 'training'}")
    return TextVAE(run.plan.recipe).fit(
        run.train,
        validation=run.validation,
        out=run.folder,
        seed=run.seed,
        device=run.device,
        resume=resume,
        progress=progress,
    )
