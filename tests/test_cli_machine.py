"""What the program says of the machine, and the optional kernels from a shell."""

from __future__ import annotations

import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from cli_support import Call, call_program

from uncollapse.cli import machine
from uncollapse.native import kernels
from uncollapse.native.library import library_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return partial(call_program, capsys)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNCOLLAPSE_KERNELS", raising=False)
    kernels.cache_clear()
    return tmp_path / "cache"


def row(text: str, name: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name}  ")]
    return line.removeprefix(name).strip()


def test_info(call: Call, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNCOLLAPSE_CORPORA", raising=False)
    code, out, err = call("info")
    assert (code, err) == (0, "")
    assert row(out, "kernels") == "none; `uncollapse kernels` compiles them"
    assert row(out, "cache") == str(fresh)
    assert row(out, "corpora") == "UNCOLLAPSE_CORPORA is not set"
    assert row(out, "bf16 in hardware") in ("yes", "no", "unknown")
    facts = json.loads(call("info", "--json")[1])
    assert {"uncollapse", "python", "torch", "lightning", "processor"} <= set(facts)
    assert facts["threads"] >= 1
    assert facts["cores"] >= 1
    assert isinstance(facts["fast_f32_products"], bool)
    assert (facts["kernels"], facts["kernels_state"]) == (None, "none")
    assert facts["corpora"] is None
    assert not fresh.exists()


def test_info_says_why_there_are_no_kernels(
    call: Call, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("UNCOLLAPSE_KERNELS", "off")
        assert row(call("info")[1], "kernels") == "off (UNCOLLAPSE_KERNELS)"
        patch.setenv("UNCOLLAPSE_KERNELS", "of")
        code, out, err = call("info")
        assert (code, out) == (2, "")
        assert err == "uncollapse: UNCOLLAPSE_KERNELS is 'of'; it can be on or off\n"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "darwin")
        assert row(call("info")[1], "kernels") == "not on this system"
    library_path().parent.mkdir(parents=True)
    library_path().write_bytes(b"no library")
    code, out, _ = call("info")
    assert code == 0
    assert row(out, "kernels").startswith("cannot load the kernels")
    assert json.loads(call("info", "--json")[1])["kernels"] is None
    assert fresh.is_dir()


def test_info_where_the_system_tells_little(
    call: Call, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_processor", lambda: ("some", set()))
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    out = call("info")[1]
    assert row(out, "bf16 in hardware") == "unknown"
    assert int(row(out, "cores")) >= 1
    assert not fresh.exists()


def test_kernels_are_compiled_once_and_taken_away(call: Call, kernels_cache: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNCOLLAPSE_CACHE", str(kernels_cache / "second"))
        patch.delenv("UNCOLLAPSE_KERNELS", raising=False)
        path = library_path()
        code, out, err = call("kernels")
        assert (code, out) == (0, f"{path}\n")
        assert err.startswith("compiled and tried out in ")
        assert path.is_file()
        written = path.stat().st_mtime_ns
        assert call("kernels") == (0, f"{path}\n", "compiled already\n")
        assert path.stat().st_mtime_ns == written
        patch.setenv("UNCOLLAPSE_KERNELS", "off")
        assert call("kernels")[2].splitlines()[-1] == "UNCOLLAPSE_KERNELS switches them off"
        assert call("kernels", "--remove") == (0, "", f"{path}: removed\n")
        assert not path.exists()
        assert call("kernels", "--remove")[2].startswith("there are no kernels")


@pytest.mark.usefixtures("used")
def test_info_names_the_kernels_in_use(call: Call, used: Counter[str]) -> None:
    assert row(call("info")[1], "kernels") == str(library_path())
    assert not used


@pytest.mark.parametrize(
    ("variable", "value", "code", "message"),
    [
        ("CXX", "no-such-compiler", 2, "CXX names a compiler 'no-such-compiler'"),
        ("CXX", "false", 1, "false cannot compile the kernels: exit code 1"),
        ("PATH", "/nowhere", 2, "everything works without them"),
        ("UNCOLLAPSE_CACHE", "/dev/null", 1, "cannot write /dev/null/kernels/kernels-"),
        ("UNCOLLAPSE_KERNELS", "on,", 2, "UNCOLLAPSE_KERNELS is 'on,'"),
    ],
)
def test_lacks_are_one_line(
    call: Call,
    kernels_cache: Path,  # noqa: ARG001 (there is a compiler)
    fresh: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv(variable, value)
    found, out, err = call("kernels")
    assert (found, out, len(err.splitlines())) == (code, "", 1)
    assert message in err
    assert not [path for path in fresh.rglob("*") if path.is_file()]
