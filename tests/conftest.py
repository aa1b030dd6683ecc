"""What all tests share: where the real corpora are, and hypothesis without wall-clock limits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# a busy machine is no failure of a property
settings.register_profile("uncollapse", deadline=None)
settings.load_profile("uncollapse")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of the real corpora; a test that needs it is skipped where there is none."""
    folder = os.environ.get("UNCOLLAPSE_CORPORA")
    if not folder:
        pytest.skip("UNCOLLAPSE_CORPORA does not name a folder of corpora")
    if not Path(folder).is_dir():
        pytest.skip(f"UNCOLLAPSE_CORPORA is {folder}, which is no folder")
    return Path(folder)
