"""Optional C++ kernels: found where they were compiled for this machine, never needed."""

from uncollapse.native.kernels import Kernels, kernels, kernels_for

__all__ = ["Kernels", "kernels", "kernels_for"]
