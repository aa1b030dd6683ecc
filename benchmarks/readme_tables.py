"""Write the tables of README and docs from the measured results; a test checks that it was run.

python benchmarks/readme_tables.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from processes_parity import page as parity_page
from processes_table import page as processes_page
from reproduction_pages import answers, verdict_counts, write_pages

from uncollapse.recipes import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
SYSTEMS = ROOT / "docs" / "systems.md"
MIXTURES = ROOT / "docs" / "mixtures.md"
DIALOGUE = ROOT / "docs" / "dialogue.md"
SPEED = ROOT / "docs" / "speed.md"
PROCESSES = ROOT / "docs" / "processes.md"
RESULTS = ROOT / "benchmarks" / "results"
COLUMNS = {
    "nll": "NLL",
    "ppl": "PPL",
    "kl": "KL",
    "mi": "MI",
    "active_units": "active units",
    "bleu": "BLEU",
    "nll_twr": "nll_twr",
}


def recipes() -> str:
    """The packaged recipes."""
    rows = [
        f"| `{name}` | {load_recipe(name).summary} | {load_recipe(name).source} |"
        for name in recipe_names()
    ]
    return "\n".join(["| recipe | what it is | source |", "|---|---|---|", *rows])


def ptb() -> str:
    """The systems measured on the Penn Treebank."""
    systems = json.loads((RESULTS / "ptb.json").read_text())["systems"]
    rows = [
        f"| `{name}` | {system['epochs']} | "
        + " | ".join(figure(system["metrics"].get(key)) for key in COLUMNS)
        + " |"
        for name, system in systems.items()
    ]
    head = f"| recipe | epochs | {' | '.join(COLUMNS.values())} |"
    return "\n".join([head, "|---" * (len(COLUMNS) + 2) + "|", *rows])


FIRST = ("nll", "kl", "mi", "active_units", "bleu")
VARIANTS = ("nll_twr", "nll_ivae", "kl_ivae", "mi_ivae")
LABELS = ("accuracy_100", "accuracy_500", "accuracy_1k", "accuracy_2k", "accuracy_10k")
GROUPS = ("probe_accuracy", "v_measure")
SHAPE = ("interpolation_rouge_l", "cosine", "aggregate_kl")


def systems(result: str, *columns: str, digits: int = 2) -> str:
    """Figures of every system of a result file, at the reduced size."""
    found = json.loads((RESULTS / f"{result}.json").read_text())
    plain = sum(cost["seconds"] for cost in found["costs"] if cost["name"] == "vae")
    figures_of = found["systems"].values()
    timed = columns == FIRST
    # what was not measured on this corpus has no column
    columns = tuple(c for c in columns if any(c in figures for figures in figures_of))
    head = [name.replace("_", " ") for name in columns]
    rows = []
    for name, figures in found["systems"].items():
        if all(figures.get(column, {}).get("value") is None for column in columns):
            continue
        cells = [figure(figures.get(column), digits) for column in columns]
        if timed:
            spent = sum(cost["seconds"] for cost in found["costs"] if cost["name"] == name)
            cells.append(f"{spent / plain:.1f}")
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    if timed:
        head.append("time / `vae`")
    lines = [f"| recipe | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|", *rows]
    return "\n".join(lines)


MIXED = (
    "nll",
    "kl",
    "kl_c",
    "kl_z_average",
    "dispersion",
    "variance",
    "mi_c_mean",
    "bleu",
    "reverse_ppl",
    "word_kl",
)
AGREEMENT = ("cluster_homogeneity", "cluster_completeness", "cluster_purity", "cluster_ami")
LABELLED = ("nll", "variance", "accuracy_act", "accuracy_emotion")


LIKELIHOOD = ("nll", "ppl", "ppl_reconstruction", "kl", "mi", "active_units")
ANSWERS = (
    "bleu_4_precision",
    "bleu_4_recall",
    "embedding_average",
    "embedding_average_recall",
    "distinct_1_inter",
    "distinct_2_inter",
    "unique_share",
    "generic_share",
    "response_label_accuracy",
)
PRINTED = (
    "bleu_f1_wae",
    "embedding_average_wae",
    "embedding_extrema_wae",
    "embedding_greedy_wae",
    "distinct_1_intra",
    "distinct_2_intra",
    "bleu_sacre",
)


def by_action(result: str, *names: str) -> str:
    """Answers of some systems in one context, an action at a time."""
    found = json.loads((RESULTS / f"{result}.json").read_text())["answers"]
    context = found[names[0]][0]["context"]
    head = f"| *{' / '.join(context)}* | {' | '.join(f'`{name}`' for name in names)} |"
    rows = [
        f"| `{action}` | "
        + " | ".join("; ".join(found[name][0]["actions"][action]) for name in names)
        + " |"
        for action in found[names[0]][0]["actions"]
    ]
    return "\n".join([head, "|---" * (len(names) + 1) + "|", *rows])


def agreement(result: str, column: str) -> str:
    """How far the codes of every system agree with a further column of labels."""
    found = json.loads((RESULTS / f"{result}.json").read_text())["agreement"][column]
    rows = [
        f"| `{name}` | "
        + " | ".join(f"{figures[key][0]:.2f} ± {figures[key][1]:.2f}" for key in AGREEMENT)
        + " |"
        for name, figures in found.items()
        if figures[AGREEMENT[0]][0] is not None
    ]
    head = [name.replace("_", " ") for name in AGREEMENT]
    return "\n".join([f"| recipe | {' | '.join(head)} |", "|---" * 5 + "|", *rows])


def greedy(result: str) -> str:
    """What greedy sentences from the prior are worth."""
    found = json.loads((RESULTS / f"{result}.json").read_text())["greedy"]
    names = ("reverse_ppl", "word_kl", "distinct_2")
    rows = [
        f"| `{system}` | {' | '.join(figure(figures.get(name)) for name in names)} |"
        for system, figures in found.items()
    ]
    head = [name.replace("_", " ") for name in names]
    return "\n".join([f"| recipe | {' | '.join(head)} |", "|---" * 4 + "|", *rows])


def demo() -> str:
    """What ``make demo`` printed."""
    found = json.loads((RESULTS / "demo.json").read_text())
    rows = [
        f"| `{run['name']}` | "
        + " | ".join(figure(run["metrics"].get(key)) for key in COLUMNS)
        + " |"
        for run in found["runs"]
    ]
    floor = (
        f"| *entropy of the grammar* | {found['entropy_floor']:.2f} |{' |' * (len(COLUMNS) - 1)}"
    )
    head = f"| recipe | {' | '.join(COLUMNS.values())} |"
    return "\n".join([head, "|---" * (len(COLUMNS) + 1) + "|", *rows, floor])


def speed_results() -> list[dict[str, Any]]:
    """Of all workloads, and of training alone, which was measured again."""
    return [json.loads((RESULTS / name).read_text()) for name in ("speed.json", "training.json")]


def latest(what: str) -> dict[str, Any]:
    """By workload, from the last results that have it."""
    return {name: value for found in speed_results() for name, value in found[what].items()}


def speed(kind: str) -> str:
    """Rates, ratios by rounds and the share of the machine's limit, of a kind of work."""
    rows, work, limits_of = [], latest("flops a token"), latest("limits by round")
    for workload, variants in latest("rounds").items():
        if not workload.startswith(kind):
            continue
        flops = work[workload]
        reference = [turn["count"] / turn["seconds"] for turn in next(iter(variants.values()))]
        limits = limits_of[workload]
        for name, turns in variants.items():
            rates = [turn["count"] / turn["seconds"] for turn in turns]
            ratios = [own / plain for own, plain in zip(rates, reference, strict=True)]
            place = 2 if "bf16" in name else 1 if "f32" in name else 0
            share = "–"
            if limits:
                pairs = zip(rates, limits, strict=True)
                share = f"{median(1e-9 * flops * rate / own[place] for rate, own in pairs):.0%}"
            spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            rows.append(
                f"| {workload.removeprefix(kind + '-')} | {name} | {number(median(rates))} "
                f"| {spread} | {share} | {max(turn['peak_mb'] for turn in turns):,.0f} MB |"
            )
    head = "| work | variant | tokens/s | ratio | of the limit | peak memory |"
    return "\n".join([head, "|---" * 6 + "|", *rows])


def speed_summary() -> str:
    """The ratio of every workload, for the package as it is and with kernels."""
    rounds = latest("rounds")
    columns = [f"{p}{k}" for p in ("f32", "bf16") for k in (", no kernels", ", kernels")]
    rows = []
    for workload, variants in rounds.items():
        plain = [turn["count"] / turn["seconds"] for turn in next(iter(variants.values()))]
        cells = []
        for column in columns:
            turns = variants.get(f"uncollapse {column}", [])
            rates = [turn["count"] / turn["seconds"] for turn in turns]
            pairs = zip(rates, plain, strict=True) if rates else ()
            cells.append(f"{median(own / other for own, other in pairs):.1f}" if rates else "–")
        rows.append(f"| {workload.replace('-', ', ', 1)} | {' | '.join(cells)} |")
    return "\n".join([f"| times the plain code | {' | '.join(columns)} |", "|---" * 5 + "|", *rows])


def speed_machine() -> str:
    """What was measured, and what the machine could do then."""
    parts = []
    for found in speed_results():
        kernels = "with" if found["kernels"] else "without"
        facts = (
            f"`{found['command']}`, commit {found['commit']}, {found['date']}: "
            f"{found['hardware']}, {found['threads']} threads, PyTorch {found['torch']}, "
            f"{kernels} kernels compiled."
        )
        shapes = list(next(iter(found["limits"].values())))
        rows = [
            f"| {precision} | {' | '.join(f'{rate:,.0f}' for rate in rates.values())} |"
            for precision, rates in found["limits"].items()
        ]
        head = f"| matrix products, GFLOP/s | {' | '.join(shapes)} |"
        parts.append("\n".join([facts, "", head, "|---" * (len(shapes) + 1) + "|", *rows]))
    return "\n\n".join(parts)


def whole_epoch() -> str:
    """A whole epoch, as `speed.py --epoch` measures it."""
    found = json.loads((RESULTS / "epoch.json").read_text())
    own = found["epoch"]
    kernels = "with" if found["kernels"] else "without"
    return (
        f"An epoch of the first of them, in bf16 {kernels} kernels, from the first batch to the "
        f"end of validation and the choice of the best weights: "
        f"{own['sentences']:,} sentences, {own['tokens']:,} tokens in {own['seconds']:.0f} s, "
        f"{own['validation_seconds']:.1f} s of these after the last batch. "
        f"`{found['command']}`, commit {found['commit']}, {found['date']}."
    )


def start_up() -> str:
    """Seconds until something happens."""
    found = json.loads((RESULTS / "speed.json").read_text())["start-up"]
    rows = [f"| {what} | {median(times):.2f} |" for what, times in found.items()]
    return "\n".join(["| | seconds, median |", "|---|---|", *rows])


def processes() -> str:
    """Rates of several processes, and over simulated links."""
    results = RESULTS / "processes.json"
    return processes_page(json.loads(results.read_text()))


def parity() -> str:
    """How far several processes are from one."""
    results = RESULTS / "processes_parity.json"
    return parity_page(json.loads(results.read_text()))


def number(value: float) -> str:
    """Three digits or so."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def figure(metric: Mapping[str, Any] | None, digits: int = 2) -> str:
    """A figure with its standard error; a dash where there is none."""
    if metric is None or metric["value"] is None:
        return "–"
    error = metric["standard_error"]
    if metric["unit"] == "units":
        return f"{metric['value']:.0f}"
    return f"{metric['value']:z.{digits}f}" + (f" ± {error:.{digits}f}" if error else "")


TABLES: dict[Path, dict[str, Callable[[], str]]] = {
    README: {
        "demo": demo,
        "recipes": recipes,
        "claims": verdict_counts,
        "answers": answers,
        "ptb": ptb,
        "speed": speed_summary,
    },
    SPEED: {
        "machine": speed_machine,
        "start-up": start_up,
        "epoch": whole_epoch,
        **{kind: lambda kind=kind: speed(kind) for kind in ("training", "likelihood", "sampling")},
    },
    PROCESSES: {"processes": processes, "parity": parity},
    SYSTEMS: {
        "yelp": lambda: systems("systems-yelp", *FIRST),
        "yelp-variants": lambda: systems("systems-yelp", *VARIANTS),
        "yelp-labels": lambda: systems("systems-yelp", *LABELS, *GROUPS),
        "yelp-shape": lambda: systems("systems-yelp", *SHAPE),
        "ptb": lambda: systems("systems-ptb", *FIRST),
    },
    DIALOGUE: {
        f"{corpus}{part}": lambda corpus=corpus, columns=columns, digits=digits: systems(
            f"dialogue-{corpus}", *columns, digits=digits
        )
        for corpus in ("dailydialog", "swda", "smd")
        for part, columns, digits in (
            ("", LIKELIHOOD, 2),
            ("-answers", ANSWERS, 3),
            ("-printed", PRINTED, 3),
        )
    }
    | {
        "actions": lambda: by_action(
            "dialogue-smd", "dgm-vae-dialogue-0.9", "di-vae-dialogue", "dgm-vae-dialogue"
        )
    },
    MIXTURES: {
        "grammar": lambda: systems("mixtures-grammar", *MIXED),
        "grammar-labels": lambda: systems("mixtures-grammar", *AGREEMENT),
        "ptb": lambda: systems("mixtures-ptb", *MIXED),
        "ptb-longer": lambda: systems("mixtures-ptb-longer", *MIXED),
        "ptb-longer-greedy": lambda: greedy("mixtures-ptb-longer"),
        "dailydialog": lambda: systems("mixtures-dailydialog", *MIXED),
        "dailydialog-act": lambda: systems("mixtures-dailydialog", *AGREEMENT),
        "dailydialog-emotion": lambda: agreement("mixtures-dailydialog", "emotion"),
        "dailydialog-labelled": lambda: systems("mixtures-dailydialog", *LABELLED),
        "dailydialog-greedy": lambda: greedy("mixtures-dailydialog"),
        "smd": lambda: systems("mixtures-smd", *MIXED),
        "smd-labels": lambda: systems("mixtures-smd", *AGREEMENT),
    },
}


def filled(page: Path) -> str:
    """A page with every table between its markers replaced by today's."""
    text = page.read_text(encoding="utf-8")
    for name, table in TABLES[page].items():
        marked = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        new = table()
        text, count = re.subn(marked, lambda m, new=new: f"{m[1]}{new}\n{m[2]}", text, flags=re.S)
        assert count == 1, f"{page.name} needs one place for the table {name}"
    return text


if __name__ == "__main__":
    for page in TABLES:
        page.write_text(filled(page), encoding="utf-8")
    write_pages()
