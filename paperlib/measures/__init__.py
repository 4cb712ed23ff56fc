"""Flags and gradients → the rows of a record, each with its interval.  Notebooks import the modules they need."""
