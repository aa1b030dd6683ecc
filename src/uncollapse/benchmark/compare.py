"""Train several recipes on the same data, measure them alike, and lay them side by side."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uncollapse import saving
from uncollapse.benchmark.request import check_measurement, require_sentences
from uncollapse.benchmark.summary import Measurement, RunSummary, TestSentences, measure
from uncollapse.config import Recipe
from uncollapse.data.sources import Rows
from uncollapse.errors import RunError, UncollapseError, UserError
from uncollapse.loading import Data
from uncollapse.recipes import load_recipe
from uncollapse.report.comparison import Comparison, Failure
from uncollapse.text_vae import TextVAE
from uncollapse.training.signals import Interrupted

FORMAT_VERSION = 1
SETTINGS = "settings.json"
SETTING_NAMES = {
    "samples": "number of samples",
    "generated": "number of generated sentences",
    "label_column": "label column",
    "metrics": "metrics",
}
HELD_OUT = "5 % of the training sentences (at most 2,000), held out at random"


class IncompleteComparison(RunError):  # noqa: N818 (an outcome that still has results)
    """Some runs failed; ``comparison`` holds the others, and all is written."""

    def __init__(self, comparison: Comparison) -> None:
        first, *others = comparison.failure_lines()
        more = f" (and {len(others)} more)" if others else ""
        super().__init__(f"{first}{more}")
        self.comparison = comparison


def compare(
    recipes: Sequence[str | Path],
    train: Data,
    test: Data,
    out: str | Path,
    *,
    validation: Data | None = None,
    seeds: int = 1,
    latent_dim: int | None = None,
    overrides: Iterable[str] = (),
    metrics: Sequence[str] = ("standard",),
    label_column: str | None = None,
    samples: int = 500,
    generated: int = 10_000,
    entropy_floor: float | None = None,
    device: str = "auto",
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Comparison:
    """Train each recipe with each seed into ``out/RECIPE/seed-K`` and measure it on ``test``.

    Runs that are finished are not computed again, and an interrupted one is resumed, so that
    the same call can simply be repeated. One failing run does not stop the others.

    Parameters
    ----------
    recipes : sequence of str or Path
        Names or recipe files.
    train, test, validation : path, hub data set name or sequence of str
        Without ``validation``, 5 % of the training sentences, at most 2,000, are held out: the
        same ones for every recipe and seed.
    out : path
        A new folder, or that of the same comparison; recipes and seeds may be added to it.
    seeds : int
        Runs a recipe, seeds 0, 1, ….
    latent_dim : int, optional
        Dimensions of every latent.
    overrides : iterable of str
        ``"section.key=value"`` for every recipe. Those of ``encoder`` and ``latents`` pass by a
        language model, which has neither.
    metrics : sequence of str
        Figures or groups of them, as `TextVAE.evaluate` takes them.
    label_column : str, optional
        Where the labels are, for the probes of representation.
    samples : int
        Importance samples of the likelihood.
    generated : int
        Sentences that the generation probes write.
    entropy_floor : float, optional
        Exact entropy of the language in nats per sentence, if it is known.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    progress : bool
        Show progress bars where stderr is a terminal.
    say : callable, optional
        Gets a line for each step.

    Returns
    -------
    Comparison
        Also written to ``out`` as ``comparison.json``, ``comparison.md`` and ``index.html``.

    Raises
    ------
    UserError
        Bad data or settings, or a folder made with others; nothing has been written.
    IncompleteComparison
        At the end, if any run failed; the page tells of the others.
    Interrupted
        SIGINT or SIGTERM, after a checkpoint.
    """
    say = say or (lambda _: None)
    out, overrides = Path(out), tuple(overrides)
    if seeds < 1:
        raise UserError(f"the number of seeds must be at least 1, not {seeds}")
    if entropy_floor is not None and not 0 <= entropy_floor < math.inf:
        raise UserError(f"the entropy floor must be finite and not negative, not {entropy_floor}")
    plans = _plans(recipes, latent_dim, overrides)
    sentences = {
        name: TestSentences.read(test, recipe.data.text_column, recipe.data.label_column)
        for name, recipe in plans.items()
    }
    given = {"train": train, "validation": validation, "test": test}
    wanted = Measurement(tuple(metrics), samples, label_column, generated)
    for recipe in plans.values():
        for what, data in (("training", train), ("validation", validation), ("test", test)):
            require_sentences(what, data, recipe.data.text_column)
        check_measurement(recipe, wanted, train, test, device)
    # in the form in which a file gives them back
    settings = {name: _fingerprint(data) for name, data in given.items()}
    settings |= json.loads(json.dumps(asdict(wanted)))
    _check_settings(out, settings)
    for name, recipe in plans.items():
        for seed in range(seeds):
            _check_recipe(out / name / f"seed-{seed}", recipe)
    _start(out, settings)

    summaries: list[RunSummary] = []
    failures: list[Failure] = []
    cause: Exception | None = None
    for name, recipe in plans.items():
        for seed in range(seeds):
            folder = out / name / f"seed-{seed}"
            try:
                summary = RunSummary.load(folder)
                if summary is None:
                    vae = _trained(folder, recipe, train, validation, seed, device, progress, say)
                    say(f"{name}, seed {seed}: measuring")
                    summary = measure(
                        vae,
                        folder,
                        train,
                        test,
                        sentences=sentences[name],
                        wanted=wanted,
                        device=device,
                    )
                    summary.save(folder)
                else:
                    say(f"{name}, seed {seed}: finished before")
                summaries.append(summary)
            except Interrupted:
                raise
            except Exception as error:  # whatever it is, the other recipes are not to blame
                failures.append(Failure(name, seed, _one_line(error)))
                say(f"{name}, seed {seed}: failed: {failures[-1].message}")
                cause = cause or error
    comparison = Comparison(
        recipes=tuple(plans),
        data=_describe(given, summaries),
        seeds=seeds,
        samples=samples,
        overrides=overrides + (() if latent_dim is None else (f"latent_dim={latent_dim}",)),
        entropy_floor=entropy_floor,
        created=datetime.now(UTC).date().isoformat(),
        summaries=tuple(summaries),
        failures=tuple(failures),
    )
    comparison.write(out)
    if failures:
        raise IncompleteComparison(comparison) from cause
    return comparison


def _plans(
    names: Sequence[str | Path], latent_dim: int | None, overrides: tuple[str, ...]
) -> dict[str, Recipe]:
    plans: dict[str, Recipe] = {}
    for name in names:
        latentless = not load_recipe(name).latents
        passing = [o for o in overrides if o.strip().startswith(("encoder.", "latents."))]
        fitting = [o for o in overrides if not (latentless and o in passing)]
        recipe = TextVAE.from_recipe(name, latent_dim=latent_dim, overrides=fitting).recipe
        if recipe.name in plans:
            raise UserError(f"recipe {recipe.name!r} is given twice")
        if Path(recipe.name).name != recipe.name:
            raise UserError(f"recipe name {recipe.name!r} cannot be the name of a folder")
        plans[recipe.name] = recipe
    if not plans:
        raise UserError("there is no recipe to compare")
    return plans


def _trained(
    folder: Path,
    recipe: Recipe,
    train: Data,
    validation: Data | None,
    seed: int,
    device: str,
    progress: bool,
    say: Callable[[str], None],
) -> TextVAE:
    if saving.is_finished(folder):
        return TextVAE.from_pretrained(folder)
    resume = (folder / "config.json").is_file()
    say(f"{recipe.name}, seed {seed}: {'resuming' if resume else 'training'}")
    return TextVAE(recipe).fit(
        train,
        validation=validation,
        out=folder,
        seed=seed,
        device=device,
        resume=resume,
        progress=progress,
    )


# --- a folder belongs to one comparison ---------------------------------------------------


def _check_settings(out: Path, settings: dict[str, Any]) -> None:
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


def _check_recipe(folder: Path, recipe: Recipe) -> None:
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


def _start(out: Path, settings: dict[str, Any]) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out}: {error.strerror}") from None
    text = json.dumps({"format_version": FORMAT_VERSION, **settings}, indent=1)
    saving.write_text(out / SETTINGS, text + "\n")


def _fingerprint(data: Data | None) -> str | None:
    if data is None or isinstance(data, str | Path):
        return None if data is None else Rows(data).identity()
    return f"list:{hashlib.sha256(json.dumps(list(data)).encode()).hexdigest()}"


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {path: values}
    pairs = (_flat(below, f"{path}.{key}".lstrip(".")) for key, below in values.items())
    return {key: value for pair in pairs for key, value in pair.items()}


def _describe(given: dict[str, Data | None], summaries: Sequence[RunSummary]) -> dict[str, str]:
    counts = summaries[0].sentences if summaries else {}
    described = {}
    for name, data in given.items():
        if data is None:
            what = HELD_OUT
        else:
            what = Path(data).name if isinstance(data, str | Path) else "a list"
        described[name] = f"{what}, {counts[name]:,} sentences" if name in counts else what
    return described


def _one_line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return first if isinstance(error, UncollapseError) else f"{type(error).__name__}: {first}"
