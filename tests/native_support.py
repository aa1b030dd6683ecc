"""The optional kernels, compiled once and found by the tests that ask for them alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uncollapse.errors import UserError
from uncollapse.native import Kernels, kernels
from uncollapse.native.kernels import GATES
from uncollapse.native.library import build_library

# what each takes: logits' or states' type, f32, f64, integers, booleans
TYPES = {
    "softmax_gradient": "Tif",
    "log_likelihood": "Tif",
    "draw": "Tfi",
    "greatest": "Ti",
    **{f"{cell}_forward": "fTffffT" for cell in GATES},
    **{f"{cell}_backward": "fffTTffT" for cell in GATES},
    **{f"{cell}_loop_forward": "fTfTffTi" for cell in GATES},
    **{f"{cell}_loop_backward": "TTfffTfTfffi" for cell in GATES},
    "adam_catch_up": "fffiffffiidddd",
    "adam_update": "ffffifff",
    "attend": "TffTTiiT",
    "attention_forward": "TffbT",
    "attention_backward": "TffbTT",
}
STRIDED = ("log_likelihood", "draw", "greatest")


@pytest.fixture(scope="session")
def kernels_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds kernels; skips where none can be compiled."""
    cache = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNCOLLAPSE_CACHE", str(cache))
        try:
            build_library()
        except UserError as error:
            pytest.skip(str(error))
    return cache


@pytest.fixture
def used(kernels_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Kernels are found; counts which were called, and checks what C++ cannot."""
    monkeypatch.setenv("UNCOLLAPSE_CACHE", str(kernels_cache))
    monkeypatch.setenv("UNCOLLAPSE_KERNELS", "on")
    counts: Counter[str] = Counter()
    call = Kernels._call

    def checked(
        self: Kernels, name: str, like: Tensor, arrays: tuple[Tensor, ...], *numbers: float
    ) -> None:
        types = {"T": like.dtype, "f": torch.float32, "d": torch.float64, "i": torch.int64}
        types["b"] = torch.bool
        assert [array.dtype for array in arrays] == [types[kind] for kind in TYPES[name]], name
        assert all(array.device.type == "cpu" for array in arrays), name
        assert all(array.is_contiguous() for array in arrays[name in STRIDED :]), name
        assert arrays[0].stride(-1) == 1 or arrays[0].shape[-1] == 1, name
        counts[name] += 1
        call(self, name, like, arrays, *numbers)

    monkeypatch.setattr(Kernels, "_call", checked)
    kernels.cache_clear()
    assert kernels() is not None
    yield counts
    kernels.cache_clear()


@pytest.fixture(params=["stock", "native"])
def ways(request: pytest.FixtureRequest) -> str:
    """With the optional kernels and without."""
    if request.param == "native":
        request.getfixturevalue("used")
    return request.param


@contextmanager
def without_kernels() -> Iterator[None]:
    """As if there were none, also where they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNCOLLAPSE_KERNELS", "off")
        kernels.cache_clear()
        yield
    kernels.cache_clear()
