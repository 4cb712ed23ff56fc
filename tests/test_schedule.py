"""The schedule's warm-up and choice of an epoch, and what a step of each defense costs in passes."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from paperlib import attacks, training
from paperlib.attacks import evaluation
from paperlib.errors import Refused
from paperlib.training import defenses
from paperlib.training.loop import ATTACKED, Schedule

SCHEDULE = Schedule(epochs=4, batch_size=20, lr=0.1, momentum=0.9, weight_decay=5e-4)  # 100 images: 5 steps an epoch
SEED = 5  # of which the third epoch is the best
CHOICE = {"eps": 0.2, "steps": 2}
EXAMPLES = {"eps": 0.1, "alpha": 0.1, "steps": 1}


def test_the_rate_climbs_in_equal_steps_and_then_falls_like_the_cosine():
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 15)
    expected = [0.02, 0.04, 0.06, 0.08, 0.1]
    for _ in range(15):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        cosine.step()
    warm = replace(SCHEDULE, warm_up=1)
    assert [warm.rate(step, 5) for step in range(20)] == pytest.approx(expected)
    assert SCHEDULE.rate(0, 5) == 0.1


def trained(network, data, schedule, **how):
    return training.epochs(network, defenses.build("vanilla", {}), data, schedule, seed=SEED, progress=False, **how)


def robust(network, data):
    attack = attacks.standard("pgd", CHOICE["eps"], steps=CHOICE["steps"])
    flags = evaluation.flags(network, data.validation, attack, bounds=data.bounds, num_classes=data.num_classes)
    return flags.float().mean().item()


def test_the_epoch_that_is_best_under_attack_on_validation_images_is_kept(tiny, fresh):
    plain, seen = fresh(), []
    for row in trained(plain, tiny, SCHEDULE):
        assert ATTACKED not in row and "best_epoch" not in row
        seen.append((robust(plain, tiny), {name: value.clone() for name, value in plain.state_dict().items()}))
    best = max(range(4), key=lambda i: (seen[i][0], -i))  # of equal ones the first
    network = fresh()
    rows = list(trained(network, tiny, replace(SCHEDULE, selection=CHOICE)))
    assert [row[ATTACKED] for row in rows] == [value for value, _ in seen]
    assert rows[-1]["best_epoch"] == best + 1
    assert best < 3, "the last epoch is the best, so that this test could not fail: take another seed"
    assert all(torch.equal(value, seen[best][1][name]) for name, value in network.state_dict().items())


def test_an_interrupted_choice_is_the_same_choice(tiny, fresh, tmp_path):
    schedule, whole, resumed = replace(SCHEDULE, selection=CHOICE), fresh(), fresh()
    expected = list(trained(whole, tiny, schedule))
    interrupted = trained(fresh(), tiny, schedule, state=tmp_path / "state")
    for _ in range(2):
        next(interrupted)
    interrupted.close()
    rows = list(trained(resumed, tiny, schedule, state=tmp_path / "state"))
    assert [row | {"seconds": 0} for row in rows] == [row | {"seconds": 0} for row in expected]
    both = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in both)


def test_no_test_image_is_needed_to_choose_an_epoch(tiny, fresh):
    rows = list(trained(fresh(), replace(tiny, test=None), replace(SCHEDULE, epochs=1, selection=CHOICE)))
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"warm_up": -1}, "warm_up is -1"),
        ({"warm_up": 4}, "warm_up is 4; it must be less than epochs = 4"),
        ({"selection": {"eps": 0.1}}, "missing.*'steps'"),
        ({"selection": {"eps": -1, "steps": 2}}, "eps is -1"),
        ({"selection": {"eps": 0.1, "steps": 0}}, "steps is 0"),
        ({"selection": CHOICE | {"samples": 5}}, "'samples'"),
    ],
)
def test_what_a_schedule_refuses(changes, words):
    with pytest.raises(Refused, match=words):
        replace(SCHEDULE, **changes)


@pytest.mark.parametrize(
    ("name", "options", "forward", "backward"),
    [
        ("vanilla", {}, 1, 1),
        ("sr", {"lam": 1}, 2, 3),  # the direction, and both passes by the weights
        ("sr", {"lam": 1, "axes": {"direction": "central"}}, 3, 4),
        ("loss-l1", {"lam": 1}, 2, 3),
        ("exact-l1", {"lam": 1}, 1, 3),  # back to the image, and back through both
        ("l2", {"lam": 1}, 1, 3),
        ("at", EXAMPLES, 2, 2),
        ("at", EXAMPLES | {"steps": 7}, 8, 8),
        ("at+sr", EXAMPLES | {"lam": 1}, 3, 4),
        ("rat", EXAMPLES, 2, 2),
        ("trades", EXAMPLES, 4, 3),  # the target, an example's gradient, clean and moved
        ("trades+sr", EXAMPLES | {"lam": 1}, 5, 5),
    ],
)
def test_the_passes_of_a_step_by_hand(name, options, forward, backward):
    assert training.passes(defenses.build(name, options)) == (forward, backward)


def test_the_passes_of_a_training_of_ones_own(monkeypatch):
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))

    @defenses.register("thrice")
    def thrice(network, batch):
        with torch.no_grad():
            network(batch.images)
        return cross_entropy(network(batch.images), batch.labels) + network(batch.images).square().mean()

    assert training.passes(defenses.build("thrice", {})) == (3, 2)
