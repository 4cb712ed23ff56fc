"""The titles of figures: one finding in words, with at most two numbers; on one network, they say so."""

import re

import pytest

from paperlib import artifacts, paths, records
from paperlib.artifacts.report import reading_order

# "-10", "99,601", "2e-10" and "32/255" are a number each; the digits of "PGD-20", "l1" and "4ε" belong to a word
NUMBER = re.compile(r"(?<![\w.,/-])[+-]?\d[\d.,]*(?:e[+-]?\d+)?(?:/\d+)?(?![\wα-ω])")
WITHOUT_NETWORK = {("thm-ratio", "exact")}
ON_ONE_NETWORK = {("thm-ratio", "scale"), ("thm-ratio", "worst")}  # in every profile
COMMITTED = [
    (profile, artifact)
    for profile in ("laptop", "cifar")
    for artifact in reading_order()
    if (paths.RESULTS / profile / f"{artifact}.json").exists()
]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Under PGD-20 SR lies 33 points above vanilla and 10 points below AT", ["33", "10"]),
        ("At 32/255 the l1 norm of 99,601 falls by -4.5 to 2e-10", ["32/255", "99,601", "-4.5", "2e-10"]),
        ("Uniform noise of 4ε, AT+SR +1", ["+1"]),
    ],
)
def test_numbers_by_hand(text, numbers):
    assert [number.rstrip(".,") for number in NUMBER.findall(text)] == numbers


@pytest.mark.parametrize(("profile", "artifact"), COMMITTED)
def test_a_title_is_one_finding_with_at_most_two_numbers_and_says_where_it_rests_on_one_network(profile, artifact):
    record = records.load(paths.RESULTS / profile / f"{artifact}.json")
    several = {seed for row in record["rows"] for seed in row["seeds"]}
    for part in artifacts.parts(artifact):
        title, place = artifacts.headline(record, part), (artifact, part)
        assert len(NUMBER.findall(title)) <= 2, title
        assert len(title) <= 150 and ";" not in title, title
        if (len(several) == 1 or place in ON_ONE_NETWORK) and place not in WITHOUT_NETWORK:
            assert re.search(r"\bone network\b", title), title


def test_every_artifact_of_laptop_is_looked_at():
    assert {("laptop", name) for name in reading_order()} <= {*COMMITTED}
