"""The optional kernels as functions of tensors.

Each takes contiguous tensors on the CPU and computes what PyTorch computes in several passes
elsewhere in the package; every caller has that other way, too, and takes it where `kernels`
gives None. Arithmetic is f32 throughout, also on bf16 arrays.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from uncollapse.errors import RunError, UserError
from uncollapse.native.library import library_path

SWITCH = "UNCOLLAPSE_KERNELS"  # "off" in the environment: as if there were none
OFF, ON = ("off", "0", "no", "false"), ("", "on", "1", "yes", "true")

GATES = {"lstm": 4, "gru": 3}  # of a unit
_ARRAY, _SIZE, _THREADS, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
# arguments before the number of threads, which comes last
_SIGNATURES = {
    "softmax_gradient": [_ARRAY] * 3 + [_SIZE] * 2,
    "log_likelihood": [_ARRAY] * 3 + [_SIZE] * 3,
    "draw": [_ARRAY] * 3 + [_SIZE] * 3 + [_REAL] * 2,
    "greatest": [_ARRAY] * 2 + [_SIZE] * 3,
    **{f"{cell}_forward": [_ARRAY] * 7 + [_SIZE] * 2 for cell in GATES},
    **{f"{cell}_backward": [_ARRAY] * 8 + [_SIZE] * 2 for cell in GATES},
    **{f"{cell}_loop_forward": [_ARRAY] * 8 + [_SIZE] * 2 for cell in GATES},
    **{f"{cell}_loop_backward": [_ARRAY] * 12 + [_SIZE] * 2 for cell in GATES},
    "attend": [_ARRAY] * 8 + [_SIZE] * 4,
    "attention_forward": [_ARRAY] * 5 + [_SIZE] * 4,
    "attention_backward": [_ARRAY] * 6 + [_SIZE] * 4,
}
# for f32 alone
_WIDE_SIGNATURES = {
    "adam_catch_up": [_ARRAY] * 14 + [_SIZE] * 2 + [_REAL],
    "adam_update": [_ARRAY] * 8 + [_SIZE] * 2 + [_REAL] * 7,
}
_SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}
Parts = tuple[Tensor, Tensor, Tensor]  # weights and both moments


@functools.cache
def kernels() -> Kernels | None:
    """Those compiled for this machine; None where there are none, or ``UNCOLLAPSE_KERNELS=off``.

    Raises
    ------
    UserError
        If ``UNCOLLAPSE_KERNELS`` says neither on nor off.
    RunError
        If they are there and cannot be loaded.
    """
    if switched_off():
        return None
    path = library_path()
    return Kernels(path) if path.exists() else None


def switched_off() -> bool:
    """Whether the environment says not to use them."""
    word = os.environ.get(SWITCH, "").strip()
    if word.lower() not in OFF + ON:
        raise UserError(f"{SWITCH} is {word!r}; it can be on or off")
    return word.lower() in OFF


switched_off()  # a typo is told before anything is read or written


def kernels_for(*tensors: Tensor) -> Kernels | None:
    """The kernels, if they can compute with such tensors: f32 and bf16 ones on the CPU."""
    found = kernels()
    if found is None:
        return None
    able = all(tensor.device.type == "cpu" and tensor.dtype in _SUFFIX for tensor in tensors)
    return found if able else None


class Kernels:
    """A compiled library.

    Parameters
    ----------
    path : Path
        The shared library.

    Raises
    ------
    RunError
        If it cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise RunError(
                f"cannot load the kernels, {error}; `uncollapse kernels` compiles them anew, "
                f"{SWITCH}=off does without"
            ) from error
        self._functions = {}
        for name, arguments in (_SIGNATURES | _WIDE_SIGNATURES).items():
            for dtype, suffix in _SUFFIX.items():
                if name in _WIDE_SIGNATURES and dtype != torch.float32:
                    continue
                function = getattr(library, f"{name}_{suffix}")
                function.argtypes = [*arguments, _THREADS]
                function.restype = None
                self._functions[name, dtype] = function

    def softmax_gradient_(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Turn ``logits`` ``(N, V)`` into softmax − one-hot in place; −log p(target), ``(N,)``."""
        rows, size = logits.shape
        nll = torch.empty(rows)
        self._call("softmax_gradient", logits, (logits, targets.contiguous(), nll), rows, size)
        return nll

    def log_likelihood(self, logits: Tensor, targets: Tensor) -> Tensor:
        """log softmax(logits)[target], ``(N,)`` f32, of rows ``(N, V)`` that stay as they are."""
        rows, size = logits.shape
        scores = torch.empty(rows)
        arrays = (logits, targets.contiguous(), scores)
        self._call("log_likelihood", logits, arrays, rows, size, logits.stride(0))
        return scores

    def draw(
        self, logits: Tensor, uniforms: Tensor, temperature: float = 1.0, top_p: float = 1.0
    ) -> Tensor:
        """A word of every row ``(N, V)`` by inversion at ``uniforms`` ``(N,)``, ``(N,)``.

        From softmax(logits / temperature), cut to the words at least as probable as the least of
        the smallest set whose probability reaches ``top_p``.
        """
        rows, size = logits.shape
        words = torch.empty(rows, dtype=torch.int64)
        arrays = (logits, uniforms.float().contiguous(), words)
        sizes = (rows, size, logits.stride(0))
        self._call("draw", logits, arrays, *sizes, temperature, top_p)
        return words

    def greatest(self, logits: Tensor) -> Tensor:
        """The first greatest entry of every row ``(N, V)``, ``(N,)``."""
        rows, size = logits.shape
        words = torch.empty(rows, dtype=torch.int64)
        self._call("greatest", logits, (logits, words), rows, size, logits.stride(0))
        return words

    def gates_forward(
        self,
        cell: str,
        gates: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        before: Tensor,
        inner: Tensor,
        memory: Tensor,
        hidden: Tensor,
    ) -> None:
        """One step of a cell, ``lstm`` or ``gru``: from ``before`` to ``memory``, ``(B, H)`` each.

        ``gates`` ``(B, G)``, the input's share, become the activated gates; ``recurrent``
        ``(B, G)`` is the state's share without its ``bias`` ``(G,)``. ``memory`` is an LSTM's cell
        and a GRU's state, ``hidden`` the state in the precision of ``recurrent``; ``inner``
        ``(B, H)`` keeps what else the backward pass needs.
        """
        arrays = (gates, recurrent, bias, before, inner, memory, hidden)
        self._call(f"{cell}_forward", hidden, arrays, *hidden.shape)

    def gates_backward(
        self,
        cell: str,
        gates: Tensor,
        inner: Tensor,
        before: Tensor,
        of_output: Tensor,
        of_hidden: Tensor,
        of_memory: Tensor,
        of_given: Tensor,
        of_recurrent: Tensor,
    ) -> None:
        """Gradient of a step: of the gates' shares ``(B, G)``; ``of_memory`` moves on.

        ``of_given`` is f32. An LSTM's shares have the same gradient: in f32, one array serves.
        """
        arrays = (gates, inner, before, of_output, of_hidden, of_memory, of_given, of_recurrent)
        self._call(f"{cell}_backward", of_recurrent, arrays, *before.shape)

    def loop_forward(
        self,
        cell: str,
        gates: Tensor,
        weight: Tensor,
        bias: Tensor,
        inner: Tensor,
        memory: Tensor,
        states: Tensor,
        starts: Tensor,
    ) -> None:
        """All T steps, of which none has more rows than the one before it.

        ``starts`` ``(T + 1,)`` int64 says where among all n rows each step's stand. ``weight``
        ``(G, H)`` are the recurrent weights; the other arrays are those of `gates_forward`, of n
        rows. ``memory`` and ``states`` have in front, B rows more, what stood before the first
        step. H is even.
        """
        arrays = (gates, weight, bias, _packed(weight), inner, memory, states, starts)
        self._call(f"{cell}_loop_forward", states, arrays, len(starts) - 1, inner.shape[1])

    def loop_backward(
        self,
        cell: str,
        weight: Tensor,
        gates: Tensor,
        inner: Tensor,
        memory: Tensor,
        of_states: Tensor,
        of_given: Tensor,
        of_recurrent: Tensor,
        of_biases: Tensor,
        of_hidden: Tensor,
        of_memory: Tensor,
        starts: Tensor,
    ) -> None:
        """Gradients of all steps, and of the state and the memory before the first, in f32.

        ``of_memory`` ``(B, H)`` holds what arrives after the last step of each row; to
        ``of_biases`` ``(T, G)`` is added what every step gives.
        """
        arrays = (weight, _packed(weight), gates, inner, memory, of_states, of_given)
        arrays += (of_recurrent, of_biases, of_hidden, of_memory, starts)
        self._call(f"{cell}_loop_backward", of_recurrent, arrays, len(of_biases), inner.shape[1])

    def adam_catch_up(
        self, parts: Parts, rows: Tensor, idle: Sequence[Tensor], epsilon: float
    ) -> Parts:
        """Rows ``(n,)`` of a table and its moments ``(V, E)`` at the present step, ``(n, E)``.

        ``idle`` says what they missed. Of the steps that move a row by aⱼ m / (bⱼ √v + ε), j = 1 …
        k: Σa, the bⱼ's mean and central moments and what m and v shrink to, ``(6, n)``; the step
        before; over how many the sum is taken as it stands, in which case Σa is 0; and by age
        and by step what aⱼ and bⱼ are made of.
        """
        found = [torch.empty(len(rows), parts[0].shape[1]) for _ in parts]
        arrays = (*parts, rows, *found, *idle)
        self._call("adam_catch_up", parts[0], arrays, *found[0].shape, epsilon)
        return found[0], found[1], found[2]

    def adam_update(
        self, found: Parts, gradient: Tensor, rows: Tensor, parts: Parts, *numbers: float
    ) -> None:
        """A step of rows ``(n,)`` that were ``found``, ``(n, E)`` each, into ``parts`` ``(V, E)``.

        ``numbers`` are a factor of the gradient, 1 − β₁, β₂, 1 − β₂, the rate and the scale of the
        root without their biases, and ε.
        """
        arrays = (*found, gradient.contiguous(), rows, *parts)
        self._call("adam_update", gradient, arrays, *gradient.shape, *numbers)

    def attend(
        self,
        parts: Tensor,
        turn: tuple[Tensor, Tensor],
        keys: Tensor,
        values: Tensor,
        places: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        """What a new position of every row sees of itself and all before it, ``(n, heads, width)``.

        ``parts`` ``(n, 3, heads, width)`` are its query, key and value before they are turned by
        cosines and sines ``(n, width / 2)``; key and value are written as position ``lengths``
        ``(n,)`` of rows ``places`` ``(n,)`` of ``(N, heads, capacity, width)``.
        """
        rows, _, heads, width = parts.shape
        seen = torch.empty_like(parts[:, 0], memory_format=torch.contiguous_format)
        arrays = (parts, *turn, keys, values, places, lengths, seen)
        self._call("attend", parts, arrays, rows, heads, width, keys.shape[2])
        return seen

    def attention_forward(
        self, parts: Tensor, turn: tuple[Tensor, Tensor], visible: Tensor | None
    ) -> Tensor:
        """What all positions of sentences see of one another, ``(B, T, heads, width)``.

        ``parts`` ``(B, T, 3, heads, width)`` are queries, keys and values before they are turned
        by cosines and sines ``(T, width / 2)``; ``visible`` ``(B, T)``, or None where each sees
        those up to its own.
        """
        batch, steps, _, heads, width = parts.shape
        seen = torch.empty_like(parts[:, :, 0], memory_format=torch.contiguous_format)
        arrays = (parts, *turn, _or_nothing(visible), seen)
        self._call("attention_forward", parts, arrays, batch, steps, heads, width)
        return seen

    def attention_backward(
        self,
        parts: Tensor,
        turn: tuple[Tensor, Tensor],
        visible: Tensor | None,
        of_seen: Tensor,
    ) -> Tensor:
        """The gradient of ``parts``, like them, from that of what was seen."""
        batch, steps, _, heads, width = parts.shape
        of_parts = torch.empty_like(parts)
        arrays = (parts, *turn, _or_nothing(visible), of_seen.contiguous(), of_parts)
        self._call("attention_backward", parts, arrays, batch, steps, heads, width)
        return of_parts

    def _call(
        self, name: str, like: Tensor, arrays: tuple[Tensor, ...], *numbers: float | int
    ) -> None:
        pointers = [array.data_ptr() for array in arrays]
        self._functions[name, like.dtype](*pointers, *numbers, torch.get_num_threads())


def _or_nothing(mask: Tensor | None) -> Tensor:
    """What stands for a mask in a call: an empty array has no address."""
    return torch.empty(0, dtype=torch.bool) if mask is None else mask.contiguous()


def _packed(weight: Tensor) -> Tensor:
    """Room for recurrent weights ``(G, H)`` of units in blocks of 32, the largest there are."""
    gates, width = weight.shape
    return weight.new_empty(gates, width + -width % 32)
