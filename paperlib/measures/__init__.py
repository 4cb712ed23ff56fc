"""Measures: from evaluations and gradients to the rows of a record, each with its interval.

The package exports nothing; notebooks import the modules that they need.
"""
