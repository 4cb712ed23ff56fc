"""Headline of the sweep over the attacker's backward rules."""

from paperlib.claims import ALL_WIDTHS, select, title


def widths(record: dict) -> str:
    """The width that breaks most of each training and what it changes against the own rule; all widths; equal cost."""
    best, together, longer = [], [], []
    for own, equal in own_rule(record):
        of = {"quantity": "mean contrast", "training": own["training"]}
        swept = [r for r in select(record, **of) if "gamma" in r]
        strongest = min(swept, key=lambda r: r["value"])
        best.append(f"{title(own['training'])} {_points(strongest)} ({strongest['rule']} {strongest['gamma']:g})")
        together += [_points(r) for r in select(record, **of, attack=ALL_WIDTHS)]
        longer += [_points(r) for r in select(record, **of, attack=equal["attack"])]
    return (
        f"The best of {len(swept)} rules against the network's own rule: {', '.join(best)} points; "
        f"all of them together {', '.join(together)}, the own rule at their cost {', '.join(longer)}"
    )


def own_rule(record: dict) -> list[tuple[dict, dict]]:
    """Of each training the mean accuracies under PGD by the network's own rule: as long as the others, and as all."""
    rows = select(record, quantity="mean accuracy", rule="own")
    return [
        tuple(sorted((r for r in rows if r["training"] == training), key=lambda r: r["steps"]))
        for training in dict.fromkeys(r["training"] for r in rows)
    ]


def _points(row: dict) -> str:
    return f"{round(100 * row['value']):+d}"
