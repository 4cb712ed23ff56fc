"""Rows of accuracy against the queries of Square, the last part of the strongest attack."""

from collections.abc import Iterable

import numpy as np

from paperlib.attacks import protocols
from paperlib.measures.rows import by_labels, certain, row
from paperlib.store.evaluations import Evaluation

POINTS = 20  # of a curve, beside its start


def query_rows(evaluations: Iterable[Evaluation], *, queries: int) -> list[dict]:
    """For each training, its accuracy under `protocols.strongest` after ever more of Square's `queries`.

    Rows "accuracy after queries", with the label `spent` from 0, where APGD ended, to `queries`: the mean over seeds of
    the share of samples that are not broken by then.  It is read off what each sample cost; no attack runs again.
    `evaluations` are of one such attack.
    """
    rows, counts = [], np.unique(np.linspace(0, queries, POINTS + 1).round().astype(int))
    for labels, group in by_labels(evaluations, lambda e: e.labels):
        spent = [np.where(e.flags, np.inf, protocols.queries_spent(e.attack, e.passes)) for e in group]
        for count in counts.tolist():
            standing = certain(float(np.mean([needed > count for needed in spent])), len(spent[0]))
            experiments = [e.experiment for e in group]
            rows.append(row(standing, experiments, quantity="accuracy after queries", spent=count, **labels))
    return rows
