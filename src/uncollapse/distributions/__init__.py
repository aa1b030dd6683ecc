"""Pure mathematics of distributions: no parameters, nothing of ours imported."""
