"""From the events of PyTorch's profiler to the time that each layer takes, backward included.

A range that a layer opened covers what runs within it. A node of the backward pass belongs to the
layer whose forward pass made it: both carry the same sequence number. Every moment is counted
once, for the innermost of the ranges around it, so that layers add up to the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

LAYER = "layer: "  # before the name of a range that belongs to a layer
BOUNDARY = "boundary of steps"
BACKWARD_SCOPE = 1  # of PyTorch's events: those of a node of the backward pass
ENGINE = "autograd::engine"  # before the name of what calls a node, and adds up what it gives
OPTIMIZER = "optimiser"
# layers that keep what other layers do within them, and name it beside their own name
WHOLE = (
    "contexts",
    "bag of words",
    "policy",
    "attribute forcing",
    "refinement",
    "critic",
    "rewards",
)


@dataclass(frozen=True)
class Event:
    """Something that ran, from ``start`` to ``end``, ns.

    Attributes
    ----------
    sequence : int
        Of an operation, the number of the node that it makes next; of a node, its own; −1: none.
    is_node : bool
        Whether it is a node of the backward pass.
    """

    name: str
    start: float
    end: float
    sequence: int = -1
    is_node: bool = False


@dataclass
class Attribution:
    """Where the time between two moments went.

    Attributes
    ----------
    seconds : dict of str to float
        By layer; what a layer of `WHOLE` does through another goes by ``WHOLE/OTHER``. All of
        them add up to the whole.
    operations : dict of (str, str) to float
        The same seconds by layer and operation.
    calls : Counter
        How often each layer's range was opened.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    operations: dict[tuple[str, str], float] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    def add(self, layer: str, operation: str, nanoseconds: float) -> None:
        """Count some time."""
        if nanoseconds <= 0:
            return
        seconds = 1e-9 * nanoseconds
        self.seconds[layer] = self.seconds.get(layer, 0.0) + seconds
        key = (layer, operation)
        self.operations[key] = self.operations.get(key, 0.0) + seconds


@dataclass
class _Open:
    """An event that has begun and not ended."""

    name: str
    end: float
    layer: str


def attribute(events: Iterable[Event], outside: str) -> Attribution:
    """Give the time between the first and the last boundary to layers.

    Parameters
    ----------
    events : iterable of Event
        Of one thread.
    outside : str
        The layer of whatever no layer covers.
    """
    ordered = sorted(events, key=lambda event: (event.start, -event.end))
    boundaries = [event for event in ordered if event.name == BOUNDARY]
    assert len(boundaries) > 1, "there is no whole step among the events"
    first, last = boundaries[0].end, boundaries[-1].start
    found = Attribution()
    layers: dict[int, str] = {}  # by sequence number
    node = outside  # the layer of the latest node
    stack = [_Open(outside, last, outside)]
    now = first

    def go_to(moment: float) -> None:
        nonlocal now
        moment = min(moment, last)
        found.add(stack[-1].layer, stack[-1].name, moment - now)
        now = max(now, moment)

    for event in ordered:
        while len(stack) > 1 and stack[-1].end <= event.start:
            go_to(stack[-1].end)
            stack.pop()
        go_to(event.start)
        above = stack[-1]
        layer = above.layer
        if event.name.startswith(LAYER):
            layer = _within(above.layer, event.name.removeprefix(LAYER))
            if first <= event.start < last:
                found.calls[layer] += 1
        elif event.name.startswith("Optimizer."):
            layer = _within(above.layer, OPTIMIZER)
        elif event.is_node:
            # a node without a number takes a gradient to a parameter: right after what made it
            layer = node = layers.get(event.sequence, node if event.sequence < 0 else layer)
        if event.sequence >= 0 and not event.is_node:
            layers[event.sequence] = layer  # the latest with this number made the node
        stack.append(_Open(event.name, min(event.end, above.end), layer))
    while stack:
        go_to(stack[-1].end)
        stack.pop()
    return found


def _within(above: str, layer: str) -> str:
    """The name of a layer that another one has called."""
    path = above.split("/")
    kept = path[: 1 + max((n for n, part in enumerate(path) if part in WHOLE), default=-1)]
    return above if kept[-1:] == [layer] else "/".join([*kept, layer])


def events_of(profiler: Any) -> list[Event]:
    """What a profiler saw in the thread that opened the boundaries."""
    found = profiler.profiler.kineto_results.events()
    (thread,) = {event.start_thread_id() for event in found if event.name() == BOUNDARY}
    return [
        Event(
            event.name(),
            event.start_ns(),
            event.start_ns() + event.duration_ns(),
            event.sequence_nr(),
            event.scope() == BACKWARD_SCOPE or event.name().startswith(ENGINE),
        )
        for event in found
        if event.start_thread_id() == thread and not event.is_async()
    ]
