"""How far the codes of a model's discrete variables agree with labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uncollapse.data.corpus import Corpus
from uncollapse.errors import unknown_name
from uncollapse.evaluation.clustering import AGREEMENT, agreement_metrics
from uncollapse.evaluation.codes import NO_VARIABLE, assignments, choose_variable
from uncollapse.evaluation.labels import several_classes
from uncollapse.evaluation.metric import Metric, no_figure
from uncollapse.evaluation.passes import Progress, check_seed, posterior_pass
from uncollapse.model import Model

CLUSTERS = tuple(AGREEMENT)


def cluster_probes(
    model: Model,
    test: Corpus,
    *,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """How far the joint codes of what a model clusters by agree with the labels of sentences.

    Parameters
    ----------
    metrics : sequence of str, optional
        Only these of ``CLUSTERS``.
    test : Corpus
        With labels, in its first column; sentences without one play no part.

    Returns
    -------
    dict of str to Metric
        In the order of ``CLUSTERS``; dashes for a model without a discrete variable.

    Raises
    ------
    UserError
        For an unknown metric, or labels that are missing or of one class only.
    """
    for name in metrics or ():
        if name not in CLUSTERS:
            raise unknown_name("metric", name, CLUSTERS)
    wanted = [name for name in CLUSTERS if metrics is None or name in metrics]
    check_seed(seed)
    if not model.variable_sizes():
        reason = f"none: {NO_VARIABLE}"
        return {name: no_figure("share", reason, AGREEMENT[name]) for name in wanted}
    tested = several_classes(test, "the test data")
    chosen = test.select(tested.rows)
    found = posterior_pass(model, chosen, batch_size=batch_size, seed=seed, progress=progress)
    assert found is not None
    variable = choose_variable(model)
    _, numbers = assignments(found.variables[variable])
    result = agreement_of(tested.labels, numbers, variable, seed=seed)
    return {name: result[name] for name in wanted}


def agreement_of(
    labels: np.ndarray, numbers: np.ndarray, variable: str, index: int | None = None, *, seed: int
) -> dict[str, Metric]:
    """The same of codes that are known already, ``(N,)``; −1 is a missing label.

    Raises
    ------
    UserError
        If no sentence has a label.
    """
    what = "joint code" if index is None else f"value of index {index}"
    return agreement_metrics(labels, numbers, f"most probable {what} of {variable}", seed=seed)
