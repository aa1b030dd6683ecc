"""A study: contexts picked at random, answered by every system, written down blind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any, Protocol

from uncollapse.errors import RunError, UserError
from uncollapse.rating.contexts import given_contexts, one_line, pick_contexts
from uncollapse.rating.criteria import about, check_criteria, check_scale
from uncollapse.rating.form import form_page, instructions
from uncollapse.rating.key import FILE, Context, Item, Key
from uncollapse.rating.sheet import sheet_name, sheet_text

if TYPE_CHECKING:
    from uncollapse.loading import Data

GROUP = 5  # responses that are looked at together to see whether an action is consistent
NAME_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike
NAME_LENGTH = 8


class Responder(Protocol):
    """What a study asks of a system; `uncollapse.TextVAE` is one."""

    @property
    def recipe(self) -> Any:
        """Its recipe: how many turns it reads, and which columns."""

    @property
    def model(self) -> Any:
        """Its network, for ``model.variable_sizes()``."""

    @property
    def respond(self) -> Callable[..., Sequence[Sequence[Any]]]:
        """What writes responses to each of several contexts."""
        ...


def export(
    runs: Sequence[str | Path] | Mapping[str, Responder],
    data: Data,
    out: str | Path,
    *,
    contexts: int = 50,
    raters: int = 3,
    criteria: Sequence[str] = ("fluency", "relevance", "informativeness"),
    scale: int = 3,
    n: int = 1,
    actions: int = 20,
    seed: int = 0,
    device: str = "auto",
    say: Callable[[str], None] | None = None,
    **decoding: Any,
) -> Path:
    """Let systems answer the same contexts, and write what people need to rate the answers.

    The folder gets a sheet ``rater-1.csv`` and a form ``rater-1.html`` for each rater,
    ``instructions.md`` for all of them, and ``key.json`` for nobody but whoever counts.

    Parameters
    ----------
    runs : sequence of path, or mapping of str to TextVAE
        The systems; a run is called by the name of its folder.
    data : path, hub data set name or sequence of mappings
        Dialogues. Only turns that something was said before are answered.
    out : path
        A folder that does not exist yet.
    contexts : int
        How many different contexts are picked.
    raters : int
        Each of them rates everything, in an order of their own.
    criteria : sequence of str
        ``fluency``, ``relevance``, ``informativeness`` and ``quality`` of single responses;
        ``consistency`` of an action: of 5 responses that share a component.
    scale : int
        The highest rating; the lowest is 1.
    n : int
        Responses of a system to a context.
    actions : int
        For consistency, how many actions of each system: some of those that it takes in
        answering the contexts. Groups of all systems answer the same contexts in pairs.
    seed : int
        Of contexts and responses. Orders and names of items come from nowhere, so that
        nobody who knows the seed can tell which system wrote what.
    device : str
        Of runs; ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    say : callable, optional
        Gets one line for each thing worth knowing.
    **decoding
        ``method``, ``temperature``, ``top_p``, ``max_length``, as for `TextVAE.respond`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    UserError
        For bad settings or data, a folder that is there already, or a system without a
        discrete variable whose consistency is asked. Nothing has been written then.
    RunError
        If the disk refuses.
    """
    from uncollapse.device import check_seed

    out = Path(out)
    say = say or _nobody
    wanted = check_criteria(criteria)
    check_scale(scale)
    grouped = any(about(name) == "group" for name in wanted)
    single = any(about(name) == "response" for name in wanted)
    _check_counts(contexts=contexts, raters=raters, n=n, actions=actions)
    check_seed(seed)
    if grouped and contexts < GROUP:
        raise UserError(f"consistency needs at least {GROUP} contexts, not {contexts}")
    _check_new(out)
    systems, folders = _open(runs, device)
    for name, system in systems.items():
        if system.recipe.condition is None:
            raise UserError(f"{name} answers nobody: its recipe has no condition; leave it out")
    if grouped:
        for name, system in systems.items():
            if not system.model.variable_sizes():
                raise UserError(f"{name}: consistency is of actions: no variable is discrete")
    chance = Random(seed)
    recipes = [system.recipe for system in systems.values()]
    picked = pick_contexts(data, recipes, contexts, chance)
    sets = [chance.sample(range(contexts), GROUP) for _ in range(actions)] if grouped else []
    seeds = [chance.randrange(2**31) for _ in range(1 + len(sets))]
    items: list[Item] = []
    for name, system in systems.items():
        try:
            answers = system.respond(given_contexts(picked), n=n, seed=seeds[0], **decoding)
            if single:
                items += _responses(name, answers)
            if grouped:
                chosen = _actions(answers, actions, seed)
                if len(chosen) < actions:
                    say(f"{name}: {len(chosen)} actions in use, fewer than {actions}")
                items += _groups(name, system, chosen, sets, picked, seeds[1:], decoding)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    key = Key(
        criteria=wanted,
        scale=scale,
        systems=folders,
        settings={
            "data": str(data) if isinstance(data, str | Path) else "a list of dialogues",
            "contexts": contexts,
            "n": n,
            "actions": len(sets),
            "seed": seed,
            **decoding,
        },
        contexts=picked,
        groups=sets,
        items=items,
        sheets=_blind(len(items), raters),
    )
    _write(out, key)
    return out


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} must be at least 1, not {count}")


def _check_new(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out} exists already; choose another folder")
    above = next(parent for parent in out.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UserError(f"{out}: {above} is not a folder")


def _open(
    runs: Sequence[str | Path] | Mapping[str, Responder], device: str
) -> tuple[Mapping[str, Responder], dict[str, str]]:
    """The systems by name, and their folders."""
    if not runs:
        raise UserError("there is no run to export responses of")
    if isinstance(runs, Mapping):
        return dict(runs), dict.fromkeys(runs, "")
    from uncollapse import TextVAE

    paths = [Path(run) for run in runs]
    places = [path.resolve() for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"{paths[number]} is there twice")
    short = [place.name for place in places]
    clash = len(set(short)) < len(short)
    names = [str(path) for path in paths] if clash else short
    systems = {
        name: TextVAE.from_pretrained(path).to(device)
        for name, path in zip(names, paths, strict=True)
    }
    return systems, dict(zip(names, map(str, paths), strict=True))


# --- answers --------------------------------------------------------------------------------


def _responses(name: str, answers: Sequence[Sequence[Any]]) -> list[Item]:
    return [
        Item(system=name, kind="response", unit=unit, responses=[one_line(reply.text)])
        for unit, replies in enumerate(answers)
        for reply in replies
    ]


def _actions(answers: Sequence[Sequence[Any]], count: int, seed: int) -> list[str]:
    """Some of the actions that a system takes, at random."""
    taken = [reply.action for replies in answers for reply in replies if reply.action is not None]
    if not taken:
        raise UserError("none of its responses has an action")
    different = list(dict.fromkeys(taken))
    return Random(seed).sample(different, min(count, len(different)))


def _groups(
    name: str,
    system: Responder,
    actions: Sequence[str],
    sets: Sequence[Sequence[int]],
    picked: Sequence[Context],
    seeds: Sequence[int],
    decoding: Mapping[str, Any],
) -> list[Item]:
    """An item an action: responses to a set of contexts with the action held."""
    items = []
    for unit, action in enumerate(actions):
        given = given_contexts([picked[number] for number in sets[unit]])
        answers = system.respond(given, component=action, seed=seeds[unit], **decoding)
        texts = [one_line(replies[0].text) for replies in answers]
        items.append(Item(system=name, kind="group", unit=unit, responses=texts, action=action))
    return items


# --- writing --------------------------------------------------------------------------------


def _blind(items: int, raters: int) -> list[dict[str, int]]:
    """Of each rater an order of the items, under names that say nothing."""
    chance = SystemRandom()
    names: set[str] = set()
    while len(names) < items * raters:
        names.add("".join(chance.choices(NAME_LETTERS, k=NAME_LENGTH)))
    unused = list(names)
    chance.shuffle(unused)
    return [
        {unused.pop(): number for number in chance.sample(range(items), items)}
        for _ in range(raters)
    ]


def _write(out: Path, key: Key) -> None:
    """The whole folder or nothing."""
    files = {FILE: key.to_json(), "instructions.md": instructions(key)}
    for rater in range(len(key.sheets)):
        files[sheet_name(rater, ".csv")] = sheet_text(key, rater)
        files[sheet_name(rater, ".html")] = form_page(key, rater)
    started: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        started = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        for name, text in files.items():
            (started / name).write_text(text, encoding="utf-8", newline="")
        started.chmod(0o755)  # a temporary folder is for its owner alone
        started.rename(out)
    except OSError as error:
        if started is not None:
            shutil.rmtree(started, ignore_errors=True)
        raise RunError(f"cannot write {out}: {error.strerror}") from None


def _nobody(_line: str) -> None:
    pass
