"""Rows of certified accuracy by hand, the comparison with attacks on disk, and the claims that they decide."""

import hashlib
import json

import numpy as np
import pytest
from handmade import made, record, row
from measures_by_hand import anova, bounds, experiment, flags, opened

from paperlib import artifacts, paths
from paperlib.artifacts import claims
from paperlib.attacks.attack import standard
from paperlib.certificates import certify
from paperlib.measures import certified
from paperlib.measures.certified import Certified, Check
from paperlib.measures.doubts import CONTRADICTED
from paperlib.store import checkpoints, evaluations

EPS = 8 / 255


def test_the_flags_are_those_of_the_certificate_and_what_failed_is_not_tried_again(network, tiny, monkeypatch):
    samples, tried = tiny.test.take(30), []

    def counted(network, images, *rest, **options):
        tried.append(len(images))
        return certify(network, images, *rest, **options)

    monkeypatch.setattr(certified, "certify", counted)
    found = certified.certified(opened(network, experiment()), samples, [0.02, 0.005])
    assert [c.eps for c in found] == [0.005, 0.02] and tried == [30, found[0].flags.sum()]
    assert found[0].size == {"eps_255": pytest.approx(1.275)}
    for c in found:
        alone = certify(network, samples.pixels(), samples.labels, eps=c.eps, bounds=samples.bounds)
        assert 0 < c.flags.sum() < 30 or c.eps == 0.02
        assert np.array_equal(c.flags, alone.certified.numpy())


def test_rows_by_hand():
    found = [Certified(experiment("vanilla", s), EPS, flags(s, 8)) for s in range(3)]
    found += [Certified(experiment("sr", s), EPS, flags(s + 4, 8)) for s in (2, 0, 1, 3)]
    vanilla, sr = certified.certified_rows(found)
    assert (vanilla["value"], *bounds(vanilla)) == pytest.approx(anova([flags(s, 8) for s in range(3)], 0, 1))
    assert vanilla["eps_255"] == 8 and sr["n"] == 8 and sr["seeds"] == [2, 0, 1, 3]
    (change,) = certified.difference_rows(found, "sr", "vanilla")  # of the three seeds that both have
    assert change["value"] == pytest.approx(0.5) and set(change["seeds"]) == {0, 1, 2}
    assert change["quantity"] == "certified difference" and change["against"] == "vanilla"
    assert certified.difference_rows(found, "at+sr", "at") == []


@pytest.fixture
def stored(monkeypatch):
    """A function that puts attacks on disk: each an attack and its flags."""

    def put(*attacks):
        monkeypatch.setattr(evaluations, "stored", lambda experiment, *, split: attacks)

    return put


def test_a_broken_certified_image_is_counted_and_marks_every_number_of_its_network(stored):
    network = experiment("sr")
    found = [Certified(network, EPS, np.array([True, True, False, True])), Certified(network, 2 * EPS, flags(1, 4))]
    right, broken, unknown = 1, 0, evaluations.UNKNOWN
    inside = standard("pgd", EPS), np.array([right, unknown, broken, right])
    stored(inside, (standard("pgd", 3 * EPS), np.zeros(4)), (standard("sparse_flips", 0), np.zeros(4)))
    (check,) = certified.checks(found)
    assert (check.certified, check.broken) == (4, 0)  # three images at the first radius and one at the second
    rows = certified.certified_rows(found)
    assert certified.doubted(rows, [check]) == rows
    stored(inside, (standard("fgsm", 1.5 * EPS), np.array([broken])))  # of one image: within the second radius alone
    (check,) = certified.checks(found)
    assert (check.certified, check.broken) == (4, 1)
    (counted,) = certified.check_rows([check])
    assert (counted["value"], counted["n"], counted["training"]) == (1, 4, "sr")
    other = row("mean accuracy", 0.5)
    marked = certified.doubted([*rows, other], [check, Check(experiment("at"), 5, 0)])
    assert [entry.get("doubts") for entry in marked] == [[CONTRADICTED]] * 2 + [None]


def test_stored_reads_flags_of_these_weights_and_leaves_strayed_samples_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CHECKPOINTS", tmp_path)
    network = experiment()
    monkeypatch.setattr(checkpoints, "description", lambda experiment: {"weights_sha256": "abc"})
    folder = network.folder / "evaluations"
    folder.mkdir(parents=True)
    attack = {"name": "pgd", "eps": EPS, "options": {"steps": 3}, "rule": {}}
    file = {"attack": attack, "split": "test", "weights_sha256": ["abc"], "flags": "10?1", "strayed": [0, 0, 0, 1.0]}
    changes = {"weights_sha256": ["old"]}, {"split": "validation"}, {"attack": None}, {"attack": attack | {"name": "?"}}
    for number, change in enumerate([{}, *changes]):
        content = file | change
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        (folder / f"{number}.json").write_text(json.dumps(content | {"sha256": digest}))
    (folder / "damaged.json").write_text("{")
    (folder / "flipped.json").write_text((folder / "0.json").read_text().replace("10?1", "00?1"))  # a changed flag
    ((found, flags_),) = evaluations.stored(network, split="test")
    assert (found.name, found.eps, found.options) == ("pgd", EPS, {"steps": 3})
    assert flags_.tolist() == [1, 0, evaluations.UNKNOWN, evaluations.UNKNOWN]


def verdict(id, rows):
    (found,) = (v for v in claims.verdicts({"fig-certified": record("fig-certified", rows)}) if v.claim.id == id)
    return found.verdict


def differences(*intervals):
    """SR - vanilla at 1/255, 2/255, ..., the last radius first."""
    rows = []
    for eps, interval in reversed([*enumerate(intervals, 1)]):
        rows.append(row("certified difference", *interval, training="sr", against="vanilla", eps_255=float(eps)))
    return rows


def test_the_claims_are_decided_at_the_middle_three_radii():
    above, across, below = (0.2, 0.1, 0.3), (0.1, -0.1, 0.3), (-0.2, -0.3, -0.1)
    id = "C3, certified, alone"
    assert verdict(id, differences(above, above)) == claims.SUPPORTED
    assert verdict(id, differences(above, across, above)) == claims.INCONCLUSIVE
    assert verdict(id, differences(above, above, below)) == claims.NOT_SUPPORTED
    assert verdict(id, differences(below, above, above, above, across)) == claims.SUPPORTED
    assert verdict(id, differences(above, above, above, across, above)) == claims.INCONCLUSIVE
    assert verdict(id, differences(above, above, above, across)) == claims.SUPPORTED  # of two middles the lower one
    assert verdict("C3, certified, with AT", differences(above)) == claims.NOT_MEASURED


def test_the_figure_shows_both_bounds_and_the_box_tells_of_the_check():
    found = made("fig-certified")
    panels = artifacts.draw(found).axes[:4]
    for panel, below, above in zip(panels, (0.52, 0.56, 0.6, 0.62), (0.58, 0.62, 0.66, 0.68), strict=True):
        lines = [line.get_ydata() for line in panel.get_lines()]
        assert lines[0][0] == pytest.approx(100 * below) and lines[1][0] == pytest.approx(100 * above)
    assert "Of 480 certified images and radii 0 were broken" in claims.finding(found)
    assert "6 points on vanilla" in artifacts.headline(found)
