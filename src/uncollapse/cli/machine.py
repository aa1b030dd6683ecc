"""Verbs about this machine: what the package finds here, and the optional kernels."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uncollapse.cli.app import Json, app, as_json_text, say

if TYPE_CHECKING:
    from collections.abc import Mapping

# flags of /proc/cpuinfo; without one of them, bf16 products are emulated
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# where there are no kernels, and why
ABSENCES = {
    "none": "none; `uncollapse kernels` compiles them",
    "off": "off (UNCOLLAPSE_KERNELS)",
    "unsupported": "not on this system",
}
YES_NO_UNKNOWN = {True: "yes", False: "no", None: "unknown"}


@app.command()
def info(as_json: Json = False) -> None:
    """Say what this machine has: versions, processor, GPUs, kernels, and where the folders are."""
    facts = _facts()
    if as_json:
        print(as_json_text(facts))
        return
    rows = _in_words(facts)
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


@app.command()
def kernels(
    remove: Annotated[
        bool, typer.Option("--remove", help="Take those of this machine away again.")
    ] = False,
) -> None:
    """Compile the optional C++ kernels for this machine; models then use them by themselves.

    It takes a C++ compiler (CXX of the environment, or c++, g++ or clang++) and a few seconds.
    What does not compute what PyTorch computes is not kept.
    """
    from time import perf_counter

    from uncollapse.native.kernels import SWITCH, switched_off
    from uncollapse.native.library import build_library, library_path

    off = switched_off()
    path = library_path()
    if remove:
        there = path.exists()
        path.unlink(missing_ok=True)
        say(f"{path}: removed" if there else "there are no kernels of this machine to remove")
        return
    if _loads(path):
        say("compiled already")
    else:
        begin = perf_counter()
        path = build_library()
        say(f"compiled and tried out in {perf_counter() - begin:.1f} s")
    if off:
        say(f"{SWITCH} switches them off")
    print(path)


def _loads(path: Path) -> bool:
    """Whether there are kernels that this process can load."""
    from uncollapse.errors import RunError
    from uncollapse.native import Kernels

    if not path.exists():
        return False
    try:
        Kernels(path)
    except RunError:
        return False
    return True


def _facts() -> dict[str, Any]:
    from importlib.metadata import version

    import torch

    from uncollapse import __version__
    from uncollapse.corpora.finding import VARIABLE
    from uncollapse.data.cache import default_cache
    from uncollapse.tuning import fast_products_are_exact

    found, state = _find_kernels()
    processor, flags = _processor()
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "uncollapse": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": version("lightning"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor,
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "bf16_in_hardware": bool(flags & BF16_FLAGS) if flags else None,
        "fast_f32_products": fast_products_are_exact(),
        "gpus": gpus,
        "kernels": found,
        "kernels_state": state,
        "cache": str(default_cache()),
        "corpora": os.environ.get(VARIABLE) or None,
    }


def _in_words(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as they are printed, by name."""
    words = {name: value for name, value in facts.items() if name != "kernels_state"}
    state = facts["kernels_state"]
    words["bf16_in_hardware"] = YES_NO_UNKNOWN[facts["bf16_in_hardware"]]
    words["fast_f32_products"] = (
        "exact, and used" if facts["fast_f32_products"] else "not exact here, and not used"
    )
    words["gpus"] = ", ".join(facts["gpus"]) or "none"
    words["kernels"] = facts["kernels"] or ABSENCES.get(state, state)
    words["corpora"] = facts["corpora"] or "UNCOLLAPSE_CORPORA is not set"
    return {name.replace("_", " "): value for name, value in words.items()}


def _find_kernels() -> tuple[str | None, str]:
    """Where the kernels in use are, and ``"on"``; else None and why there are none."""
    from uncollapse.errors import RunError
    from uncollapse.native import kernels as find
    from uncollapse.native.kernels import switched_off

    if switched_off():
        return None, "off"
    if not sys.platform.startswith("linux"):
        return None, "unsupported"
    try:
        found = find()
    except RunError as error:
        return None, str(error)
    return (None, "none") if found is None else (str(found.path), "on")


def _processor() -> tuple[str, set[str]]:
    """Its name, and the flags of its instructions where the system tells them."""
    name, flags = platform.processor() or platform.machine(), set()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return name, flags
    for line in reversed(lines):  # the first processor has the last word
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
    return name, flags


def _cores() -> int | None:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()
