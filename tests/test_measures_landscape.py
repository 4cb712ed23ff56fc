"""The loss along lines through an image: a linear network whose loss is known, clamping, which images, how rough."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from measures_by_hand import SEEDS, experiment, images, only, opened, select

from paperlib.errors import Refused
from paperlib.measures import landscape
from paperlib.measures.landscape import roughness
from paperlib.store.experiment import Opened

WIDE = (-10.0, 10.0)  # bounds that nothing reaches
WEIGHTS = torch.tensor([2.0, -1.0, 0.5, -3.0]) / 10
VANILLA, SR = SEEDS[0], experiment("sr")


def split(pixels, labels, first=0, bounds=WIDE):
    """Images (N, 1, 2, 2) of bytes `pixels` (N, 4), numbered from `first`."""
    return replace(images(np.reshape(pixels, (-1, 1, 2, 2)), labels, first), bounds=bounds)


IMAGES = split([[200, 10, 200, 10], [10, 200, 10, 200], [128, 90, 255, 0], [0, 250, 7, 255]], [0, 1, 0, 1])


def linear(images):
    """Two classes whose logits differ by w·x: the loss of class 0 is log(1 + exp(-w·x))."""
    score = images.flatten(1) @ WEIGHTS.to(images)
    return torch.stack([score, torch.zeros_like(score)], dim=1)


def constant(images):
    """Class 0 whatever the image, and a gradient of exactly 0."""
    return images.flatten(1).sum(1, keepdim=True) * 0 + torch.tensor([1.0, 0.0])


def walked(network=linear, samples=IMAGES, of=(VANILLA,), *, reach_255=51.0, points=3):
    return landscape.landscapes(opened(network, *of), samples, reach_255=reach_255, points=points)


def plane_of(network, samples, *, reach_255=8.0, points=2):
    return landscape.landscape_plane(opened(network, VANILLA), samples, reach_255=reach_255, points=points)


# ---- along a line ------------------------------------------------------------------------------------------------


def test_the_loss_of_a_linear_network_by_its_closed_form():
    # along the attack's direction the margin m falls by t·‖w‖₁: the loss is log(1 + exp(t·‖w‖₁ - m))
    (found,) = walked()
    x = IMAGES.pixels().double().flatten(1)
    margin = (x @ WEIGHTS.double()) * torch.tensor([1.0, -1.0, 1.0, -1.0])
    t = torch.tensor([-51, -34, -17, 0, 17, 34, 51]).double() / 255
    known = torch.log1p(torch.exp(t * 0.65 - margin[:, None])).numpy()  # ‖w‖₁ = 0.65
    assert found.t_255 == pytest.approx(t.numpy() * 255) and found.loss["attack"] == pytest.approx(known, rel=1e-5)
    assert (found.right["attack"] == (t * 0.65 < margin[:, None]).numpy()).all() and not found.flat.any()


def test_along_a_random_direction_the_margin_moves_by_whole_weights():
    (found,) = walked()
    margin = -np.log(np.expm1(found.loss["random"])) * np.array([1, -1, 1, -1])[:, None]
    slope = np.diff(margin, axis=1) / (17 / 255)
    corners = [sum((2 * s - 1) * w for s, w in zip(c, WEIGHTS.tolist(), strict=True)) for c in np.ndindex(2, 2, 2, 2)]
    for own in slope:
        assert own == pytest.approx(own[0], abs=1e-4)
        assert min(abs(own[0] - corner) for corner in corners) < 1e-4


@given(st.floats(0.5, 200), st.integers(1, 9))
def test_the_grid_is_symmetric_around_the_clean_image(reach, points):
    (found,) = walked(reach_255=reach, points=points)
    assert len(found.t_255) == 2 * points + 1 and found.t_255[points] == 0 and found.t_255[-1] == reach
    assert (found.t_255 == -found.t_255[::-1]).all()
    clean = torch.nn.functional.cross_entropy(linear(IMAGES.pixels()).double(), IMAGES.labels, reduction="none")
    for direction in ("attack", "random"):
        assert (found.loss[direction][:, points] == clean.numpy()).all()


def test_perturbed_images_are_clamped_to_the_bounds():
    inputs = []

    def network(images):
        inputs.append(images.detach())
        return linear(images)

    # twice the range: the far end is a corner
    (found,) = walked(network, replace(IMAGES, bounds=(0.0, 1.0)), reach_255=510.0, points=2)
    assert all(images.min() >= 0 and images.max() <= 1 for images in inputs)
    # the worst corner for class 0 has the pixels of negative weight at 1: w·x = -0.4; for class 1 the others: 0.25
    worst = np.log1p(np.exp(np.array([0.4, 0.25, 0.4, 0.25])))
    assert found.loss["attack"][:, -1] == pytest.approx(worst) and found.loss["attack"][:, -2] == pytest.approx(worst)


def test_a_random_direction_is_a_samples_own_whatever_its_company():
    same = split([[128, 90, 255, 0]] * 8, [0] * 8)
    (together,) = walked(samples=same)
    assert len(np.unique(together.loss["random"][:, -1].round(6))) > 2  # of 8 equal images
    assert np.ptp(together.loss["attack"], axis=0) == pytest.approx(0, abs=1e-6)
    alone = replace(same, images=same.images[5:6], labels=same.labels[5:6], index=same.index[5:6])
    (alone,) = walked(samples=alone)
    for direction in ("attack", "random"):
        assert (alone.loss[direction][0] == together.loss[direction][5]).all()


def test_on_a_spiking_network_the_company_changes_nothing_either(network, tiny):
    how = {"reach_255": 32.0, "points": 2}
    (some,), (more,) = walked(network, tiny.test.take(7), **how), walked(network, tiny.test.take(120), **how)
    assert more.loss["random"][:7] == pytest.approx(some.loss["random"], rel=1e-5)
    assert (more.right["random"][:7] == some.right["random"]).all() and len(more.flat) == 120


def test_where_the_gradient_is_zero_the_attack_has_no_direction():
    (found,) = walked(constant)
    assert found.flat.all() and np.ptp(found.loss["attack"]) > 0 and (np.ptp(found.loss["attack"], axis=1) == 0).all()
    rows = landscape.landscape_rows([found])
    zero = only(rows, quantity="zero gradient")
    assert zero["value"] == 1 and zero["n"] == 4
    assert {(r["value"], r["n"]) for r in select(rows, quantity="roughness")} == {(None, 0)}


@pytest.mark.parametrize("wrong", [{"reach_255": 0.0}, {"reach_255": -8.0}, {"points": 0}])
def test_a_walk_that_leads_nowhere_is_refused(wrong):
    for measure in (walked, plane_of):
        with pytest.raises(Refused, match=next(iter(wrong))):
            measure(linear, IMAGES, **wrong)


# ---- which images ------------------------------------------------------------------------------------------------


def test_only_images_that_all_networks_classify_correctly_are_taken():
    mine = split([[200, 10, 200, 10], [10, 200, 10, 200], [0, 255, 0, 255], [255, 0, 0, 0]], [0, 1, 0, 0], first=40)
    kept = landscape.agreed([Opened(VANILLA, linear), Opened(SR, constant)], mine)  # 1 is wrong in SR, 2 in vanilla
    assert kept.index.tolist() == [40, 43] and kept.labels.tolist() == [0, 0] and kept.bounds == WIDE
    assert torch.equal(kept.images, mine.images[[0, 3]])
    assert landscape.agreed(opened(linear, VANILLA), mine).index.tolist() == [40, 41, 43]


def test_where_no_image_is_left_every_row_says_so():
    none = landscape.agreed(opened(linear, VANILLA, SR), split([[0, 255, 0, 255]], [0]))
    assert len(none) == 0
    found = walked(samples=none, of=(VANILLA, SR))
    rows = landscape.landscape_rows(found)
    assert len(rows) == 2 * (2 * (2 * 7 + 1) + 1)
    assert {(r["value"], r["low"], r["n"]) for r in rows} == {(None, None, 0)}
    assert landscape.landscape_curves(found)["loss"]["sr"] == {"attack": [], "random": []}
    assert plane_of(linear, none) == {"t_255": [-8.0, -4.0, 0.0, 4.0, 8.0], "loss": {}, "right": {}}


# ---- rows --------------------------------------------------------------------------------------------------------


def test_rows_are_medians_and_shares_over_images():
    nets = [Opened(VANILLA, linear), Opened(SR, lambda images: 2 * linear(images))]
    found = landscape.landscapes(nets, IMAGES, reach_255=204.0, points=1)
    rows = landscape.landscape_rows(found)
    right = only(rows, quantity="still correct", training="sr", direction="attack", t_255=204.0)
    loss = only(rows, quantity="loss", training="vanilla", direction="attack", t_255=204.0)
    # margins (10·w·x·10⁻¹/255): 460/2550 and so on; a step of 0.8 takes 0.52 from each
    margin = np.array([400 - 10 + 100 - 30, -(20 - 200 + 5 - 600), 256 - 90 + 127.5, 250 - 3.5 + 765]) / 2550
    assert right["value"] == pytest.approx((margin > 0.52).mean()) and right["n"] == 4
    assert loss["value"] == pytest.approx(np.median(np.log1p(np.exp(0.52 - margin))), rel=1e-5)
    assert loss["low"] <= loss["value"] <= loss["high"] and loss["experiments"] == [VANILLA.key]
    assert {r.get("lam") for r in select(rows, training="sr")} == {0.1}
    kept = landscape.landscape_curves(found)
    assert kept["t_255"] == [-204.0, 0.0, 204.0] and set(kept["loss"]) == {"vanilla", "sr"}
    assert np.array(kept["loss"]["sr"]["random"]) == pytest.approx(found[1].loss["random"], rel=1e-3)


# ---- roughness ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ([0, 1, 1, 4], 0.0),  # stairs that lead up
        ([4, 1, 0.5, 0], 0.0),  # and down
        ([0, 1, 0, 1], 2 / 3),  # of three steps one is left
        ([0, 2, 1, 0], 1.0),
        ([1, 1, 1, 1], math.nan),
    ],
)
def test_the_roughness_by_hand(loss, expected):
    assert roughness(np.array([loss])) == pytest.approx([expected], nan_ok=True)


@given(arrays(float, (3, 6), elements=st.floats(0, 50)), st.floats(0.1, 10))
def test_the_roughness_is_a_share_and_free_of_scale(loss, factor):
    found = roughness(loss)
    known = np.isfinite(found)
    assert (known == (np.ptp(loss, axis=1) > 0)).all() and ((found >= 0) & (found <= 1) | ~known).all()
    moves = np.ptp(loss, axis=1) > 1e-200  # below, the product underflows
    assert roughness(factor * loss)[moves] == pytest.approx(found[moves], abs=1e-6)


# ---- the plane ---------------------------------------------------------------------------------------------------


def test_the_plane_holds_both_lines_as_its_middle_row_and_column(network, tiny):
    how = {"reach_255": 40.0, "points": 4}
    plane, (lines,) = plane_of(network, tiny.test.take(5), **how), walked(network, tiny.test.take(1), **how)
    loss, right = np.array(plane["loss"]["vanilla"]), np.array(plane["right"]["vanilla"])
    assert loss.shape == right.shape == (9, 9) and plane["t_255"] == lines.t_255.tolist()
    for direction, own, correct in (("attack", loss[4], right[4]), ("random", loss[:, 4], right[:, 4])):
        assert own == pytest.approx(lines.loss[direction][0], rel=2e-3)  # four digits are kept
        assert (correct == lines.right[direction][0]).all()
    assert np.array(plane["image"]) == pytest.approx(tiny.test.pixels(slice(1))[0].numpy(), rel=1e-3)


def test_the_plane_of_a_linear_network_by_its_closed_form():
    plane = plane_of(linear, IMAGES, reach_255=25.5)
    margin = -np.log(np.expm1(np.array(plane["loss"]["vanilla"])))
    assert np.diff(margin, axis=1) == pytest.approx(np.full((5, 4), -0.05 * 0.65), abs=2e-3)
    assert np.diff(margin, n=2, axis=0) == pytest.approx(np.zeros((3, 5)), abs=3e-3)
