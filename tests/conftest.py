"""What all tests share: where the real corpora are, and hypothesis without wall-clock limits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# tiny models are slower on several threads, and much slower where the cores are shared;
# set before torch is imported, so that programs which tests start inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

pytest_plugins = ["native_support"]  # its fixtures

# a busy machine is no failure of a property
settings.register_profile("uncollapse", deadline=None)
settings.load_profile("uncollapse")


@pytest.fixture(scope="session", autouse=True)
def _own_cache() -> Iterator[None]:
    """Encoded corpora of tests stay out of the user's cache."""
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("UNCOLLAPSE_CACHE")
        os.environ["UNCOLLAPSE_CACHE"] = folder
        yield
        if before is None:
            del os.environ["UNCOLLAPSE_CACHE"]
        else:
            os.environ["UNCOLLAPSE_CACHE"] = before


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of the real corpora; a test that needs it is skipped where there is none."""
    folder = os.environ.get("UNCOLLAPSE_CORPORA")
    if not folder:
        pytest.skip("UNCOLLAPSE_CORPORA does not name a folder of corpora")
    if not Path(folder).is_dir():
        pytest.skip(f"UNCOLLAPSE_CORPORA is {folder}, which is no folder")
    return Path(folder)
