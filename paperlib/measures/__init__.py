"""Measures: from evaluations and gradients to the rows of a record, each with its interval; it exports nothing."""
