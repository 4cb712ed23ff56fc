"""The gradient-masking checklist: what is checked, and when a check has failed.  Pure; from a record's rows alone.

Athalye et al., arXiv 1802.00420; Carlini et al., arXiv 1902.06705; section 7 of the paper notes, points 1 and 3.  A
check that fails says that the gradient attack's number overstates robustness; one that passes says only that this
symptom is absent.

One rule for all: a check has `PASSED` where its number lies on the good side of the limit or at it, and `FAILED` where
the whole 95 % interval lies on the bad side; between these it is `UNDECIDED`.
"""

from typing import NamedTuple

from paperlib.claims import percent, points, select

PASSED, FAILED, UNDECIDED = VERDICTS = ("passed", "failed", "undecided")


class Check(NamedTuple):
    """One line of the list.  Its number is a share of images, or a `difference` of two on the same images."""

    name: str  # as records name it
    statement: str  # what holds of a sound evaluation
    otherwise: str  # what does not
    measured: str  # which number says so
    limit: float = 0.0
    at_most: bool = False  # whether the good side is below the limit
    difference: bool = True


CHECKS = (
    Check("one step", "One step does not beat many", "one step beats many", "FGSM - PGD"),
    Check(
        "no gradient",
        "Search without gradients does not beat them",
        "search without gradients beats them",
        "Square - PGD",
    ),
    Check(
        "transfer",
        "Another network's examples do not beat its own",
        "another network's examples beat its own",
        "transfer - PGD",
    ),
    Check(
        "random search",
        "Random draws do not find what gradients miss",
        "random draws find what gradients miss",
        "random search - PGD",
    ),
    Check(
        "unbounded",
        "Without a bound hardly an image survives",
        "images survive without a bound",
        "left at ε = 255/255",
        limit=0.05,
        at_most=True,
        difference=False,
    ),
    Check("radius", "A larger ε never helps the defender", "a larger ε helps the defender", "ε - next larger ε"),
    Check("more steps", "More steps never help the defender", "more steps help the defender", "few - many steps"),
    Check(
        "converged",
        "More steps find little more",
        "more steps find much more",
        "few - many steps",
        limit=0.05,
        at_most=True,
    ),
    Check(
        "zero gradient",
        "Few images have a gradient of exactly 0",
        "many images have a gradient of exactly 0",
        "gradient = 0",
        limit=0.1,
        at_most=True,
        difference=False,
    ),
    Check("scale, CE", "Scaled logits do not fool PGD on CE", "scaled logits fool PGD on CE", "c = 1 - other c"),
    Check("scale, DLR", "Scaled logits do not fool APGD on DLR", "scaled logits fool APGD on DLR", "c = 1 - other c"),
)
BY_NAME = {check.name: check for check in CHECKS}


class Cell(NamedTuple):
    """What one check says of one training: the rows behind it and the one that decides."""

    check: Check
    training: str
    rows: list[dict]
    worst: dict
    verdict: str


def verdict(row: dict) -> str:
    """Of one row of a check; without a value it is undecided."""
    value, *ends = (None if row[name] is None else _margin(row, row[name]) for name in ("value", "low", "high"))
    if value is None:
        return UNDECIDED
    if value >= 0:
        return PASSED
    return FAILED if None not in ends and max(ends) < 0 else UNDECIDED


def cells(record: dict) -> list[Cell]:
    """One a check and training, in the list's order; where a check has several rows the worst of them decides."""
    found = []
    for check in CHECKS:
        rows = select(record, quantity="check", check=check.name)
        for training in dict.fromkeys(row["training"] for row in rows):
            own = [row for row in rows if row["training"] == training]
            worst = min(own, key=_badness)
            found.append(Cell(check, training, own, worst, verdict(worst)))
    return found


def number(row: dict) -> str:
    """A row's value with its interval: points where it is a difference, else a percentage."""
    return points(row) if BY_NAME[row["check"]].difference else percent(row)


def place(row: dict) -> str:
    """Which of a check's several rows it is: "from 8 to 16/255", "c = 100"; empty where there is one."""
    if "from_255" in row:
        return f"from {row['from_255']:g} to {row['eps_255']:g}/255"
    return f"c = {row['scale']:g}" if "scale" in row else ""


def condition(check: Check) -> str:
    """What its number must be: "≥ 0 points", "≤ 5 %"."""
    return f"{'≤' if check.at_most else '≥'} {100 * check.limit:g} {'points' if check.difference else '%'}"


def _badness(row: dict) -> tuple[int, float]:
    value = row["value"]
    return (FAILED, UNDECIDED, PASSED).index(verdict(row)), 1 if value is None else _margin(row, value)


def _margin(row: dict, value: float) -> float:
    """How far `value` lies on the good side."""
    check = BY_NAME[row["check"]]
    return check.limit - value if check.at_most else value - check.limit
