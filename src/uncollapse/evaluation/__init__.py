"""Measuring a model: every figure with its unit, estimator, sample count and error.

Nothing is imported here: :func:`uncollapse.evaluation.standard.evaluate` is the way in.
"""
