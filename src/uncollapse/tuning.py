"""Process-wide settings that make PyTorch faster on a CPU without changing what it computes."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.backends.mkldnn as mkldnn
from torch import Tensor

# glibc's names for mallopt parameters (malloc.h)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
# f32 arithmetic errs by about 3e-7 in this test, bf16 by about 3e-3
LARGEST_ERROR = 1e-5
# compiled kernels that oneDNN and PyTorch's layer above it may each keep
KEPT_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "256"}
MULTIPLE = 64  # of rows
MATMUL: Any = getattr(mkldnn, "matmul")  # noqa: B009 (an attribute set at run time)


@contextlib.contextmanager
def tuned_process() -> Iterator[None]:
    """Bound and reuse memory; take the faster f32 matrix products where they are true f32.

    The memory settings stay for the life of the process (they cannot be taken back); the
    product setting is put back. What a system lacks is left alone.
    """
    bound_kernel_caches()
    keep_freed_memory()
    before = MATMUL.fp32_precision
    if fast_products_are_exact():
        MATMUL.fp32_precision = "bf16"
    try:
        yield
    finally:
        MATMUL.fp32_precision = before


def bound_kernel_caches() -> None:
    """Keep the compiled kernels of usual shapes, unless the user's environment says otherwise.

    Each number of rows gets kernels of its own, and batches of text have dozens of numbers.
    Compiling them anew costs a seventh of a training step, but the default caches (1,024 kernels
    each) hold 300 MB after an epoch. Read by oneDNN when it is first used.
    """
    for name, value in KEPT_KERNELS.items():
        os.environ.setdefault(name, value)


def in_multiples(rows: Tensor) -> Tensor:
    """Rows ``(N, ·)`` and then zeros, as many as `missing_of_multiple` says."""
    missing = missing_of_multiple(len(rows))
    if not missing:
        return rows
    return torch.cat([rows, rows.new_zeros(missing, rows.shape[1])])


def missing_of_multiple(rows: int) -> int:
    """Rows by which a product should have more than so many, to be of a multiple of `MULTIPLE`.

    Each number of rows gets matrix kernels of its own, and compiling those costs more than
    multiplying a few rows of zeros.
    """
    return -rows % MULTIPLE


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc keep freed memory instead of giving it back to the system.

    A training step allocates and frees the same few large blocks. By default each is mapped
    anew, and every page of it faults again.

    Returns
    -------
    bool
        Whether the process runs on glibc and took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1}
    return all(libc.mallopt(parameter, value) for parameter, value in settings.items())


@functools.cache
def fast_products_are_exact() -> bool:
    """Probe whether oneDNN's "bf16" products of f32 matrices are in truth computed in f32.

    On x86 processors without AMX, the setting merely routes f32 products to oneDNN, whose
    kernels are up to twice as fast as MKL's on AMD. With AMX it rounds to bf16, so nothing but
    the error itself can be trusted.
    """
    if not mkldnn.is_available():
        return False
    return product_error("bf16") < LARGEST_ERROR


def product_error(precision: str) -> float:
    """Largest relative error of f32 products under a precision setting, against float64.

    Products of several shapes are tried, since each picks a kernel of its own.
    """
    generator = torch.Generator().manual_seed(0)
    before = MATMUL.fp32_precision
    worst = 0.0
    try:
        MATMUL.fp32_precision = precision
        for rows, inner, columns in ((32, 256, 1024), (736, 256, 1000), (1000, 736, 256)):
            a = torch.randn(rows, inner, generator=generator)
            b = torch.randn(inner, columns, generator=generator)
            exact = a.double() @ b.double()
            for product in (a @ b, torch.nn.functional.linear(a, b.t().contiguous())):
                error = (product.double() - exact).norm() / exact.norm()
                worst = max(worst, float(error))
    finally:
        MATMUL.fp32_precision = before
    return worst
