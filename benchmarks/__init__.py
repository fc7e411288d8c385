"""Measures us against the best there is: one file a subject, `python -m benchmarks` runs them."""
