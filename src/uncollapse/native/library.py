"""Compiling the optional kernels, on request and for this machine alone."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from uncollapse.data.cache import default_cache
from uncollapse.errors import RunError, UserError

FOLDER = Path(__file__).parent  # of the source
# rounding stays IEEE's; what goes is errno, traps, and the sign of zeros
FLAGS = ["-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"]
COMPILERS = ("c++", "g++", "clang++")


def library_path() -> Path:
    """Where the kernels for this processor, system and version of the source are, or would be."""
    facts = [path.read_bytes() for path in _sources("*.[ch]pp")]
    facts += [" ".join(FLAGS).encode(), _processor().encode()]
    digest = hashlib.sha256(b"\0".join(facts)).hexdigest()[:16]
    return default_cache() / "kernels" / f"kernels-{digest}.so"


def build_library() -> Path:
    """Compile the kernels, try them out, and put them where they will be found.

    It takes a C++17 compiler with OpenMP: ``CXX`` of the environment, or the first of c++, g++
    and clang++ that there is.

    Returns
    -------
    Path
        The shared library.

    Raises
    ------
    UserError
        Without a compiler, or on a system that the kernels are not for.
    RunError
        If compiling fails, or if the result does not compute what PyTorch computes.
    """
    if not sys.platform.startswith("linux"):
        raise UserError(f"the kernels are for Linux; this is {platform.system()}")
    program = _find_compiler()
    target = library_path()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            _compile(program, made)
            _try_out(made)
            made.replace(target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _sources(pattern: str) -> list[Path]:
    return sorted(FOLDER.glob(pattern))


def _compile(program: list[str], target: Path) -> None:
    command = [*program, *FLAGS, *map(str, _sources("*.cpp")), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)
        why = said.strip()[:300] or f"exit code {done.returncode}"
        raise RunError(f"{program[0]} cannot compile the kernels: {why}")


def _try_out(library: Path) -> None:
    """In a process of its own, which an illegal instruction may kill."""
    command = [sys.executable, "-m", "uncollapse.native.check", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        said = lines[-1] if lines else f"exit code {done.returncode}"
        raise RunError(f"the compiled kernels were not kept, for they fail their check: {said}")


def _find_compiler() -> list[str]:
    wanted = os.environ.get("CXX", "").split()
    if wanted:
        if shutil.which(wanted[0]) is None:
            raise UserError(f"CXX names a compiler {wanted[0]!r}, which is not on the path")
        return wanted
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise UserError(
        f"compiling the kernels takes a C++ compiler, and none of {', '.join(COMPILERS)} is on "
        "the path; everything works without them"
    )


def _processor() -> str:
    """What decides whether a program compiled for this machine runs: a shared folder serves many.

    Returns
    -------
    str
        The system, the C library, and the processor's instructions.
    """
    facts = [platform.system(), platform.machine(), *platform.libc_ver()]
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return " ".join(facts)
    named = ("flags", "Features", "model name")
    lines = text.split("\n\n")[0].splitlines()
    return " ".join([*facts, *(line for line in lines if line.startswith(named))])
