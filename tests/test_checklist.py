"""What is told of the gradient-masking checklist: its rule by hand, the headline, the box, the matrix."""

import pytest
from handmade import cells as table_cells
from handmade import made, record, row

from paperlib import artifacts
from paperlib.artifacts.tab_masking_checklist import (
    CHECKS,
    FAILED,
    PASSED,
    UNDECIDED,
    VERDICTS,
    box,
    cells,
    condition,
    verdict,
)

ARTIFACT = "tab-masking-checklist"


def checked(training="vanilla", **numbers):
    """Rows of one training whose numbers lie at the limits, so that all pass, but for `numbers`: value, low, high."""
    limits = {check.name.replace(" ", "_").replace(",", ""): check for check in CHECKS}
    assert set(numbers) <= set(limits)
    found = {check.name: numbers.get(name, (check.limit, None, None)) for name, check in limits.items()}
    told = {"training": training, "attack": "fgsm"}
    return [row("check", *interval, check=name, **told) for name, interval in found.items()]


@pytest.mark.parametrize(
    ("check", "value", "low", "high", "expected"),
    [
        ("one step", 0.1, 0.05, 0.2, PASSED),
        ("one step", 0.0, -0.03, 0.03, PASSED),  # exactly the limit
        ("one step", 0.01, -0.1, 0.1, PASSED),
        ("one step", -0.01, -0.04, 0.02, UNDECIDED),
        ("one step", -0.01, -0.02, 0.0, UNDECIDED),  # the interval reaches the good side
        ("one step", -0.1, -0.2, -0.01, FAILED),
        ("one step", -0.1, None, None, UNDECIDED),
        ("one step", 0.1, None, None, PASSED),
        ("one step", None, None, None, UNDECIDED),
        ("unbounded", 0.05, 0.02, 0.1, PASSED),
        ("unbounded", 0.06, 0.03, 0.12, UNDECIDED),
        ("unbounded", 0.2, 0.06, 0.3, FAILED),
        ("zero gradient", 0.09, 0.05, 0.2, PASSED),
        ("zero gradient", 0.3, 0.2, 0.4, FAILED),
        ("converged", -0.5, -0.6, -0.4, PASSED),  # "more steps" is what speaks against that
        ("converged", 0.2, 0.1, 0.3, FAILED),
        ("scale, CE", -0.5, -0.6, -0.4, FAILED),
    ],
)
def test_the_rule_by_hand(check, value, low, high, expected):
    assert verdict({"check": check, "value": value, "low": low, "high": high}) == expected


def test_a_failed_row_decides_before_a_worse_number_that_is_undecided():
    unsure, failed, unknown, fine = (
        row("check", *interval, check="radius", training="vanilla", from_255=8.0 * i, eps_255=8.0 * (i + 1))
        for i, interval in enumerate(
            [(-0.3, -0.7, 0.1), (-0.1, -0.15, -0.05), (None, None, None), (0.3, 0.2, 0.4)], start=1
        )
    )
    for rows, expected in (
        ([unsure, failed], (FAILED, failed)),
        ([failed, unsure], (FAILED, failed)),
        ([fine, unknown], (UNDECIDED, unknown)),
    ):
        (cell,) = cells(record(ARTIFACT, rows))
        assert (cell.verdict, cell.worst) == expected


def test_the_headline_counts_what_passed_and_names_what_failed_or_else_what_is_undecided():
    rows = checked() + checked("sr", one_step=(-0.2, -0.3, -0.1), no_gradient=(-0.01, -0.1, 0.1))
    rows += checked("at", unbounded=(0.3, 0.2, 0.4), transfer=(None, None, None))
    assert artifacts.headline(record(ARTIFACT, rows)) == (
        "32 of 36 checks passed, but one step beats many and images survive without a bound"
    )
    unsure = checked() + checked("sr", no_gradient=(-0.01, -0.1, 0.1))
    assert artifacts.headline(record(ARTIFACT, unsure)) == (
        "23 of 24 checks passed, but it is undecided whether search without gradients beats PGD"
    )
    assert artifacts.headline(record(ARTIFACT, checked())) == "12 of 12 checks passed"


def test_the_box_has_a_line_a_check_which_fails_where_one_training_does():
    rows = checked() + checked("sr", one_step=(-0.2, -0.3, -0.1), no_gradient=(-0.01, -0.1, 0.1))
    lines = list(box(record(ARTIFACT, rows)))
    expected = {f"{check.statement}.": True for check in CHECKS}
    expected |= {"One step does not beat many.": False, "Search without gradients does not beat PGD.": None}
    assert {line.statement: line.holds for line in lines} == expected
    assert lines[0].numbers == "vanilla +0.0 points, SR -20.0 points [-30.0, -10.0]."


def test_the_table_has_every_number_and_the_matrix_every_cell():
    found = made(ARTIFACT)
    (head, *lines), scaled = map(table_cells, artifacts.table(found).split("\n\n"))
    assert head == ["check", "number", "passes", "vanilla", "SR", "AT", "AT+SR"]
    assert [line[:3] for line in lines] == [[c.statement, c.measured, condition(c)] for c in CHECKS]
    assert lines[5][1:3] == ["left at ε = 255/255", "≤ 5 %"]
    *each, ce, _ = lines
    assert all(cell.partition(":")[0] in VERDICTS and "[" in cell for line in each for cell in line[3:])
    assert ce[3].startswith("failed: -90.0 points [") and ce[3].endswith("c = 100") and ce[4:] == [""] * 3
    assert scaled[0] == ["logits times", "clean", "PGD-10, 16/255", "APGD-DLR-10, 16/255"]
    assert [line[0] for line in scaled[1:]] == ["1", "100"]
    matrix, control = artifacts.draw(found).axes
    texts = [text.get_text() for text in matrix.texts if text.get_text()[0] in "✓✗?"]
    assert len(texts) == len(cells(found)) == 10 * 4 + 2
    failed = [text for text in texts if text.startswith("✗")]
    assert len(failed) == sum(cell.verdict == FAILED for cell in cells(found)) and "✗  -90  (c = 100)" in failed
    assert [line.get_label() for line in control.lines] == ["no attack", "PGD-10, 16/255", "APGD-DLR-10, 16/255"]
