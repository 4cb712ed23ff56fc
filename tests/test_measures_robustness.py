"""`judge` on networks whose robustness is known, what it doubts, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

import paperlib
from paperlib.errors import Refused

BOUNDS = (0.0, 1.0)
W = torch.randn(16, generator=torch.Generator().manual_seed(0))


class Linear(nn.Module):
    """Two classes: the second where w·x > w·½."""

    def forward(self, x):
        score = (x.flatten(1) - 0.5) @ W.to(x)
        return torch.stack([-score, score], 1) / 2


@pytest.fixture
def samples():
    """60 images that no attack within 0.05 moves to the bounds, and labels of which 55 are right."""
    images = 0.5 + 0.8 * (torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(1)) - 0.5)
    labels = Linear()(images).argmax(1)
    labels[:5] = 1 - labels[:5]
    return images, labels


def judged(network, samples, **changes):
    return paperlib.judge(network.eval(), *samples, **{"eps": 0.05, "bounds": BOUNDS, "budget": "quick"} | changes)


def test_the_worst_case_of_a_linear_network_by_its_closed_form(samples):
    # within ε in l∞ the score moves by ε‖w‖₁ at most, and PGD reaches that corner
    found = judged(Linear(), samples)
    score = ((samples[0].flatten(1) - 0.5) @ W).abs().numpy()
    right = np.arange(60) >= 5
    survivors = (right & (score > 0.05 * W.abs().sum().item())).mean()
    assert 0.1 < survivors < 0.8 and found.clean == 55 / 60 and found.worst_case == survivors
    assert (found.n, found.eps, found.doubts) == (60, 0.05, [])
    rows = {row["attack"]: row for row in found.rows}
    assert list(rows) == ["clean", "uniform noise", "FGSM", "PGD-20", "Square-200", "worst of all"]
    assert rows["FGSM"]["accuracy"] == rows["PGD-20"]["accuracy"] == survivors
    assert rows["uniform noise"]["accuracy"] > rows["Square-200"]["accuracy"] >= survivors
    # Wilson, 55 of 60, z² = 3.8415: centre (11/12 + z²/120)/(1 + z²/60) = 0.89159, half width 0.07228
    assert (rows["clean"]["low"], rows["clean"]["high"]) == pytest.approx((0.81931, 0.96388), abs=2e-5)
    assert rows["clean"]["passes"] == 1 and rows["worst of all"]["passes"] == pytest.approx(
        sum(row["passes"] for name, row in rows.items() if name != "worst of all")
    )


def test_the_units_of_the_images_do_not_matter(samples):
    class Scaled(Linear):
        def forward(self, x):
            return super().forward((x + 4) / 8)

    images, labels = samples
    found = judged(Scaled(), (8 * images.double() - 4, labels.int()), eps=0.4, bounds=(-4.0, 4.0))
    plain = judged(Linear(), samples)
    assert (found.clean, found.worst_case) == (plain.clean, plain.worst_case)


def test_hidden_gradients_are_doubted_in_every_form_of_the_table(samples):
    class Stairs(Linear):
        def forward(self, x):
            return super().forward((200 * x).round() / 200) + 0 * x.flatten(1)[:, :2]

    found = judged(Stairs(), samples)
    doubted = {row["attack"] for row in found.rows if row["doubts"]}
    assert "PGD-20" in doubted and found.worst_case < found.rows[3]["accuracy"]
    assert any("gradients are exactly 0" in doubt for doubt in found.doubts)
    for text in (str(found), found._repr_markdown_()):
        assert "60 images" in text and f"{100 * found.clean:.1f}" in text and "worst of all" in text and "†" in text
    assert list(found.table["attack"])[0] == "clean"


def test_larger_budgets_add_attacks_that_the_network_can_take(samples, network, tiny):
    few = samples[0][:6], samples[1][:6]
    titles = [row["attack"] for row in judged(Linear(), few, budget="standard").rows]
    assert {"sign noise", "APGD-CE-100", "Square-1000"} <= set(titles) and len(set(titles)) == len(titles)
    assert not any("DLR" in title or "sigmoid" in title for title in titles)  # two classes, and no rules
    part = tiny.test.take(3)
    spiking = [row["attack"] for row in judged(network, (part.pixels(), part.labels), budget="standard").rows]
    assert {"APGD-DLR-100", "PGD-20 sigmoid 4", "PGD-20 rate"} <= set(spiking)


IMAGES, LABELS = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "changes", "reason"),
    [
        (IMAGES, LABELS, {"eps": 0}, "eps is 0"),
        (IMAGES, LABELS, {"budget": "vast"}, "no budget 'vast'. Allowed: quick, standard, full"),
        (IMAGES, LABELS, {"bounds": (1.0, 0.0)}, "lower one must lie below"),
        (IMAGES, LABELS, {"bounds": (0.0, 0.1)}, "must lie from 0.0 to 0.1"),
        (IMAGES, LABELS, {"num_classes": 3}, "num_classes is 3; the network has logits of 2 classes"),
        (255 * IMAGES, LABELS, {}, "must lie from 0.0 to 1.0"),
        (IMAGES.byte(), LABELS, {}, "must be a tensor of floating-point images"),
        (IMAGES[:0], LABELS[:0], {}, "must be a tensor of floating-point images"),
        (IMAGES, LABELS[:3], {}, "must be a tensor of 4 whole numbers"),
        (IMAGES, LABELS.float(), {}, "must be a tensor of 4 whole numbers"),
        (IMAGES, LABELS + 1, {}, "A label is 2; the network's 2 logits fit 0 to 1"),
    ],
)
def test_what_cannot_be_judged_is_refused(images, labels, changes, reason):
    with pytest.raises(Refused, match=reason):
        judged(Linear(), (images, labels), **changes)


def test_a_network_in_training_mode_or_without_logits_is_refused(samples):
    with pytest.raises(Refused, match=r"training mode.*network.eval\(\)"):
        paperlib.judge(Linear().train(), *samples, eps=0.1, bounds=BOUNDS)
    with pytest.raises(Refused, match="must return logits"):
        judged(nn.Flatten(0), samples)
