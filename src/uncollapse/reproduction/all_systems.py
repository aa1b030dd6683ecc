"""Train and measure all systems on all corpora, for the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uncollapse.errors import UserError, unknown_name
from uncollapse.jobs.running import check_request, run_all
from uncollapse.recipes import recipe_names
from uncollapse.reproduction.folder import open_folder
from uncollapse.reproduction.inputs import check_preset, open_corpus, prepare
from uncollapse.reproduction.leaderboard import to_csv, to_dict, to_markdown
from uncollapse.reproduction.purposes import DIALOGUES, SENTENCES, figures_for, rows_for
from uncollapse.reproduction.records import Record, write_sealed
from uncollapse.reproduction.report import check_untouched
from uncollapse.reproduction.reproduce import Incomplete
from uncollapse.reproduction.tasks import Task, make_task
from uncollapse.saving import write_text

Say = Callable[[str], None]


@dataclass(frozen=True)
class Leaderboard:
    """What all systems have given.

    Attributes
    ----------
    records : list of Record
    failures : list of (str, str)
        Runs that failed, and why.
    missing : dict of str to str
        Corpora that are not here, and what is lacking.
    """

    records: list[Record]
    failures: list[tuple[str, str]]
    missing: dict[str, str]

    def to_markdown(self) -> str:
        """The page."""
        lines = [to_markdown(self.records)]
        if self.missing:
            lines += ["## Corpora that are not here", ""]
            lines += [*(f"- {name}: {why}" for name, why in self.missing.items()), ""]
        if self.failures:
            lines += ["## Failed runs", "", *(f"- {run}: {why}" for run, why in self.failures), ""]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            **to_dict(self.records),
            "missing": self.missing,
            "failures": [list(failure) for failure in self.failures],
        }


def leaderboard(
    out: str | Path,
    *,
    preset: str = "small",
    corpora: str | Path | None = None,
    on: Sequence[str] = (),
    systems: Sequence[str] = (),
    seeds: int = 1,
    jobs: int = 1,
    cluster: str | None = None,
    cluster_options: Mapping[str, Any] | None = None,
    device: str = "auto",
    say: Say | None = None,
) -> Leaderboard:
    """Train every system on every corpus that it can be trained on, and rank them.

    The runs are those of `reproduce`, in the same folder: what a table has done is not repeated.

    Parameters
    ----------
    out, preset, corpora, seeds, jobs, cluster, cluster_options, device, say
        As in `reproduce`.
    on : sequence of str
        Corpora; by default all that are here. Dialogue systems are trained on corpora of
        dialogues.
    systems : sequence of str
        Recipes; by default all.

    Raises
    ------
    UserError
        An unknown name, or no corpus.
    RunError
        A file of results that was edited by hand.
    Incomplete
        At the end, if any run failed.
    Interrupted
        SIGINT or SIGTERM, after checkpoints.
    """
    say, out, chosen = say or (lambda _: None), Path(out), check_preset(preset)
    check_request(seeds, jobs, cluster, cluster_options or {}, device)
    for name in on:
        if name not in SENTENCES:
            known = dict.fromkeys([*SENTENCES, *DIALOGUES])
            if name not in known:
                raise unknown_name("corpus", name, known)
    for name in systems:
        if name not in recipe_names():
            raise unknown_name("recipe", name, recipe_names())
    folder = None if corpora is None else Path(corpora)
    places = [(name, False) for name in SENTENCES] + [(name, True) for name in DIALOGUES]
    found, missing, seen = [], {}, set()
    for name, dialogues in places:
        if on and name not in on:
            continue
        try:
            corpus = open_corpus(name, chosen, folder, dialogues=dialogues)
        except UserError as error:
            missing[name] = str(error)
            continue
        if corpus.edition not in seen:  # a stand-in may be there as itself
            seen.add(corpus.edition)
            found.append((corpus, dialogues))
    if not found:
        raise UserError(next(iter(missing.values())))
    rows = {  # by edition
        corpus.edition: [
            row
            for row in rows_for(dialogues, corpus.label_columns)
            if not systems or row.recipe in systems
        ]
        for corpus, dialogues in found
    }
    if not any(rows.values()):
        raise UserError("none of these systems can be trained on these corpora")
    for name in sorted({*systems} - {row.recipe for own in rows.values() for row in own}):
        say(f"{name} is left out: it cannot be trained on these corpora")
    for name, why in missing.items():
        say(f"{name} is left out: {why}")
    open_folder(out)
    check_untouched(out, "leaderboard", preset)
    tasks: list[Task] = []
    for seed in range(seeds):
        for corpus, dialogues in found:
            ready = prepare(corpus, chosen, out)
            for row in rows[corpus.edition]:
                wanted = figures_for(dialogues, bool(ready.label_columns))
                tasks.append(make_task(row, ready, ready, chosen, out, seed, wanted, device))
    outcomes = run_all(tasks, jobs, out, say, cluster, cluster_options or {})
    board = Leaderboard(
        [outcome.record for outcome in outcomes if outcome.record is not None],
        [(outcome.task.describe(), outcome.failure) for outcome in outcomes if outcome.failure],
        missing,
    )
    write_text(out / f"leaderboard-{preset}.md", board.to_markdown() + "\n")
    write_text(out / f"leaderboard-{preset}.csv", to_csv(board.records))
    write_sealed(out / f"leaderboard-{preset}.json", board.to_dict())
    if board.failures:
        raise Incomplete(board, board.failures)
    return board
