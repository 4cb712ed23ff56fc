"""Trainings × attacks: the comparison of all trainings, and the ladder of attacks on four of them, to be sorted."""

from html import escape

from paperlib import labels, words
from paperlib.artifacts import budgets
from paperlib.artifacts.fig_attack_ladder import on_ladder, rung_name
from paperlib.artifacts.reading import same_attack, select, trainings, under, where
from paperlib.site.shown import Shown
from paperlib.site.sortable import Cell, share, table


def page(one: Shown) -> str:
    """The tables of a profile as Markdown, or the sentence that says what to run."""
    blocks = [f"## {one.short}: profile `{one.name}`"]
    for artifact, made in (("tab-ablation", _contest), ("fig-attack-ladder", _ladder)):
        if artifact in one.records:
            blocks.append(made(one.records[artifact]))
            blocks.append(f"From [`{artifact}`](results/{one.name}/{artifact}.md).")
    return "\n\n".join(
        blocks if len(blocks) > 1 else [*blocks, one.missing or "The records of these tables are missing."]
    )


def _contest(record: dict) -> str:
    """A line for each training, the most robust one first."""
    means, worst = select(record, quantity="mean accuracy", budget=None), budgets.worst(record, labels.EPOCHS)
    strong = words.size(worst[0]) if worst else {}
    attacks = [*under(means, labels.CLEAN), *where(means, **strong), *under(means, "pgd")]
    columns = list({(words.attack(row), row["eps_255"]): row for row in attacks}.values())
    lines = []
    for name in trainings(record):
        own, last = where(means, training=name), where(worst, training=name)
        line = [Cell(escape(words.title(name))), _count(budgets.cost(record, "passes per image", name, labels.EPOCHS))]
        line += [_count(len(own[0]["seeds"]))]
        line += [share(next(iter(same_attack(own, column)), None)) for column in columns]
        lines.append([*line, share(last[0] if last else None)])
    lines.sort(key=lambda line: line[-1].value or 0, reverse=True)
    heads = ["training", "passes an image<small>in training</small>", "networks"]
    heads += [_head(column) for column in columns]
    if worst:
        heads.append(f"worst of all, {words.radius(worst[0])}<small>{_sample(worst[0])}</small>")
    data, samples = record["provenance"]["data"]["title"], record["provenance"]["parameters"]["samples"]
    caption = (
        f"Accuracy of every training at equal epochs, {data}, {samples} test images unless the head says otherwise"
    )
    return table(caption, heads, lines, sorted_by=len(heads) - 1)


def _ladder(record: dict) -> str:
    """A line for each rung, the weakest first: accuracy of each training, and the passes that it cost."""
    means, passes = (on_ladder(record, quantity) for quantity in ("mean accuracy", "mean passes"))
    names = trainings(record)
    lines = []
    for i, rung in enumerate(where(means, training=names[0])):
        cells = [next(iter(where(same_attack(means, rung), training=name)), None) for name in names]
        costs = [row["value"] for row in same_attack(passes, rung)]
        lines.append([Cell(escape(rung_name(rung)), i), _count(sum(costs) / len(costs)), *map(share, cells)])
    heads = [
        "attack<small>APGD and Square with all before them</small>",
        "passes an image<small>mean over trainings</small>",
    ]
    heads += [escape(words.title(name)) for name in names]
    provenance, last = record["provenance"], under(means, labels.WORST)[0]
    caption = f"Ever stronger attacks at {words.radius(last)}, {provenance['data']['title']}, "
    caption += f"{provenance['parameters']['samples']} test images, {_sample(last)}"
    return table(caption, heads, lines)


def _head(row: dict) -> str:
    name = escape(words.attack(row))
    return name if row["attack"] == labels.CLEAN else f"{name}, {words.radius(row)}"


def _sample(row: dict) -> str:
    """The networks of a row, after the images where its interval is over these too."""
    networks = f"{len(row['seeds'])} network{'s' * (len(row['seeds']) > 1)}"
    return f"{row['n']} images, {networks}" if row["over"] != labels.SEEDS else networks


def _count(number: float | None) -> Cell:
    return Cell("" if number is None else f"{number:,.0f}", number)
