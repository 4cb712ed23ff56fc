"""The training loop: against torch's own schedule, interrupted and resumed to the bit, and refusing what cannot be."""

import hashlib
import math
import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from paperlib import defenses, images, training
from paperlib.errors import Refused
from paperlib.training import Schedule

SCHEDULE = Schedule(epochs=3, batch_size=16, lr=0.1, momentum=0.9, weight_decay=5e-4)  # 100 images: 6 steps an epoch
DEFENSES = {
    "vanilla": {},
    "at+sr": {"eps": 0.1, "alpha": 0.1, "steps": 2, "lam": 0.01},
}


class Interrupted(Exception):
    pass


@dataclass
class Watched:
    """Another defense, counted; at step `at` (from 0, over all epochs) `act` decides what becomes of its loss."""

    defense: defenses.Defense
    at: int = -1
    act: object = None
    steps: int = 0

    def loss(self, network, batch):
        loss = self.defense.loss(network, batch)
        self.steps += 1
        return self.act(loss) if self.steps - 1 == self.at else loss


def interrupt(loss):
    raise Interrupted


def train(network, data, *, name="vanilla", at=-1, act=interrupt, schedule=SCHEDULE, seed=7, state=None):
    """Whatever `training.epochs` yields, and how many losses it asked for."""
    watched = Watched(defenses.build(name, DEFENSES[name]), at, act)
    rows = list(training.epochs(network, watched, data, schedule, seed=seed, state=state, progress=False))
    return rows, watched.steps


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def photos(tiny):
    """`tiny` as if crops and mirror images suited it, so that augmentation draws chance as well."""
    return replace(tiny, crops_and_flips=True)


@pytest.mark.parametrize("augmented", [False, True])
def test_the_loop_is_sgd_under_half_a_cosine(tiny, photos, fresh, augmented):
    data = photos if augmented else tiny
    ours, theirs = fresh(), fresh()
    rows, _ = train(ours, data)
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3 * 6)
    for epoch in range(3):
        draw, losses = torch.Generator().manual_seed(7 * 1_000_003 + epoch), []
        theirs.train()
        for x, y, _ in list(data.train.batches(16, draw))[:6]:  # the last batch is not whole
            optimiser.zero_grad()
            loss = cross_entropy(theirs(images.augment(x, draw) if augmented else x), y)
            loss.backward()
            optimiser.step()
            cosine.step()
            losses.append(loss.item())
        assert rows[epoch]["loss"] == pytest.approx(sum(losses) / 6, rel=1e-4)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_row_an_epoch_says_how_it_went(tiny, fresh):
    network = fresh()
    rows, steps = train(network, tiny)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert steps == 3 * 6
    assert rows[2]["loss"] < rows[0]["loss"]
    correct = network.eval()(tiny.validation.pixels()).argmax(1) == tiny.validation.labels
    assert rows[2]["validation_accuracy"] == correct.float().mean().item()
    assert all(row["seconds"] > 0 for row in rows)


def test_the_seed_decides_everything(tiny, photos, fresh):
    runs = []
    for data, seed in ((tiny, 7), (tiny, 7), (tiny, 8), (photos, 7)):
        torch.manual_seed(len(runs))  # torch's global chance must not matter
        runs.append(fresh())
        train(runs[-1], data, name="at+sr", seed=seed)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
    assert not same(runs[0], runs[3])


@pytest.mark.parametrize("name", DEFENSES)
@pytest.mark.parametrize(
    "at", [3, 6, 8, 12 + 5]
)  # in the first epoch, at its end, in the second, at the very last step
def test_an_interrupted_training_ends_with_the_same_weights_to_the_bit(photos, fresh, tmp_path, name, at):
    whole, resumed, state = fresh(), fresh(), tmp_path / "state.pt"
    rows, _ = train(whole, photos, name=name)
    with pytest.raises(Interrupted):
        train(fresh(), photos, name=name, at=at, state=state)
    assert state.exists() == (at >= 6)
    found, steps = train(resumed, photos, name=name, state=state)
    assert same(whole, resumed)
    assert steps == 18 - at // 6 * 6  # whole epochs are not trained again
    assert [row | {"seconds": 0} for row in found] == [row | {"seconds": 0} for row in rows]


def test_two_interruptions_do_no_more_harm_than_one(photos, fresh, tmp_path):
    whole, resumed, state = fresh(), fresh(), tmp_path / "state.pt"
    train(whole, photos)
    for at in (8, 7):  # in the second epoch, then in the third
        with pytest.raises(Interrupted):
            train(fresh(), photos, at=at, state=state)
    train(resumed, photos, state=state)
    assert same(whole, resumed)


def test_the_networks_first_weights_do_not_matter_to_a_resumed_training(photos, fresh, tmp_path):
    state, networks = tmp_path / "state.pt", [fresh(0), fresh(1)]
    with pytest.raises(Interrupted):
        train(fresh(0), photos, at=13, state=state)
    kept = state.read_bytes()
    for network in networks:
        state.write_bytes(kept)
        train(network, photos, state=state)
    assert same(*networks)


def test_a_finished_training_is_not_trained_again(tiny, fresh, tmp_path):
    state, again = tmp_path / "state.pt", fresh(1)
    network = fresh()
    rows, _ = train(network, tiny, state=state)
    found, steps = train(again, tiny, state=state)
    assert (found, steps) == (rows, 0)
    assert same(network, again)


def test_the_bytes_of_a_content_know_no_file(tiny, fresh):
    assert training.to_bytes(fresh().state_dict()) == training.to_bytes(fresh().state_dict())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused_by_epoch_step_and_rate(tiny, fresh, tmp_path, value):
    network, state = fresh(), tmp_path / "state.pt"
    lr = 0.05 * (1 + math.cos(math.pi * 8 / 18))
    with pytest.raises(Refused, match=f"loss became {value} in epoch 2, step 3, at learning rate {lr:.4g}"):
        train(network, tiny, at=8, act=lambda loss: loss * value, state=state)
    assert all(weight.isfinite().all() for weight in network.parameters())
    assert train(fresh(), tiny, state=state)[1] == 12  # what was good is kept, and goes on


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: bytes([data[0] ^ 1]) + data[1:]]
)
def test_a_damaged_state_is_refused_by_name(tiny, fresh, tmp_path, damage):
    state = tmp_path / "state.pt"
    train(fresh(), tiny, state=state)
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(Refused, match="state.pt is damaged. Delete it"):
        train(fresh(), tiny, state=state)
    state.unlink()
    train(fresh(), tiny, state=state)


def test_a_damaged_state_is_refused_in_one_sentence(tiny, fresh, tmp_path):
    state = tmp_path / "state.pt"
    train(fresh(), tiny, state=state)
    state.write_bytes(bytes([state.read_bytes()[0] ^ 1]) + state.read_bytes()[1:])
    with pytest.raises(Refused) as refusal:
        train(fresh(), tiny, state=state)
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value)  # torch's own text advises to load it unsafely


def test_one_flipped_bit_in_a_state_is_noticed(tiny, fresh, tmp_path):
    network, state = fresh(), tmp_path / "state.pt"
    train(network, tiny, state=state)
    data = bytearray(state.read_bytes())
    place = bytes(data).find(network.head.weight.detach().numpy().tobytes())
    assert place > 0
    data[place + 2] ^= 0x10
    state.write_bytes(data)
    with pytest.raises(Refused, match="state.pt is damaged"):
        train(fresh(), tiny, state=state)


def test_a_state_holds_no_code(tiny, fresh, tmp_path):
    state, code = tmp_path / "state.pt", training.to_bytes({"network": print})
    state.write_bytes(hashlib.sha256(code).digest() + code)
    with pytest.raises((Refused, pickle.UnpicklingError)):
        train(fresh(), tiny, state=state)


def test_a_full_disk_keeps_the_last_whole_epoch(tiny, fresh, tmp_path, full_disk):
    whole, resumed, state = fresh(), fresh(), tmp_path / "state.pt"
    train(whole, tiny)
    with pytest.raises(Interrupted):
        train(fresh(), tiny, at=8, state=state)
    with full_disk("state.pt"), pytest.raises(Refused, match="Could not write .*state.pt: no space left"):
        train(fresh(), tiny, state=state)
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    assert train(resumed, tiny, state=state)[1] == 12
    assert same(whole, resumed)


def test_a_batch_that_the_data_does_not_fill_is_refused(tiny, fresh):
    with pytest.raises(Refused, match="100 training images do not fill one batch of 101"):
        train(fresh(), tiny, schedule=replace(SCHEDULE, batch_size=101))
    train(fresh(), tiny, schedule=replace(SCHEDULE, batch_size=100, epochs=1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("lr", 0),
        ("lr", math.nan),
        ("momentum", -0.1),
        ("weight_decay", -1),
        ("weight_decay", "5e-4"),
        ("epochs", 1.5),
        ("batch_size", 16.0),
    ],
)
def test_a_schedule_refuses_what_it_cannot_be(field, value):
    with pytest.raises(Refused, match=f"^{field} is {value!r}; it must be"):
        replace(SCHEDULE, **{field: value})
