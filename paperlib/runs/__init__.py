"""Runs of notebooks: what they ask for, what that costs, how they are executed and published."""

from paperlib.runs.run import Run, begin
