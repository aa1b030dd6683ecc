"""The training engine: one function, :func:`uncollapse.training.fit.fit`.

Nothing is imported here, because Lightning takes seconds to load.
"""
