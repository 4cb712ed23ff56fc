"""The training loop: against torch's own schedule, interrupted and resumed to the bit, and refusing what cannot be."""

import copy
import hashlib
import math
import pickle
import re
from dataclasses import dataclass, field, fields, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from paperlib import attacks, training
from paperlib.data import sets
from paperlib.data.sets import ImageSet
from paperlib.errors import Refused
from paperlib.training import defenses
from paperlib.training.loop import Schedule

SCHEDULE = Schedule(epochs=3, batch_size=16, lr=0.1, momentum=0.9, weight_decay=5e-4)  # 100 images: 6 steps an epoch
DEFENSES = {
    "vanilla": {},
    "at+sr": {"eps": 0.1, "alpha": 0.1, "steps": 2, "lam": 0.01},
    "rat": {"eps": 0.1, "alpha": 0.1, "steps": 1, "beta": 0.05},
}
SELECTION = {"eps": 0.05, "steps": 2}


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

    def after_step(self, network):
        defenses.after_step(self.defense, network)


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


def torchs_rates(optimiser, warm_up, epochs, steps):
    """Torch's own chain: a line from lr/n to lr in n steps, then half a cosine."""
    schedulers, rising = torch.optim.lr_scheduler, warm_up * steps
    cosine = schedulers.CosineAnnealingLR(optimiser, (epochs - warm_up) * steps)
    if not warm_up:
        return cosine
    line = schedulers.LinearLR(optimiser, start_factor=1 / rising, total_iters=rising - 1)
    return schedulers.SequentialLR(optimiser, [line, cosine], milestones=[rising])


@pytest.mark.parametrize(("augmented", "warm_up"), [(False, 0), (True, 0), (False, 1), (False, 2)])
def test_the_loop_is_sgd_under_half_a_cosine_behind_its_warm_up(tiny, photos, fresh, augmented, warm_up):
    data = photos if augmented else tiny
    ours, theirs = fresh(), fresh()
    rows, _ = train(ours, data, schedule=replace(SCHEDULE, warm_up=warm_up))
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    cosine = torchs_rates(optimiser, warm_up, 3, 6)
    for epoch in range(3):
        draw, losses = torch.Generator().manual_seed(7 * 1_000_003 + epoch), []
        theirs.train()
        for x, y, _ in list(data.train.batches(16, draw))[:6]:  # the last batch is not whole
            optimiser.zero_grad()
            loss = cross_entropy(theirs(sets.augment(x, draw) if augmented else x), y)
            loss.backward()
            optimiser.step()
            (rate,) = cosine.get_last_lr()
            cosine.step()
            losses.append(loss.item())
        assert rows[epoch]["loss"] == pytest.approx(sum(losses) / 6, rel=1e-4)
        assert rows[epoch]["lr"] == pytest.approx(rate, rel=1e-9)  # of the epoch's last step
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_rates_of_eight_steps_by_hand():
    schedule = Schedule(epochs=4, batch_size=16, lr=0.1, momentum=0.9, weight_decay=0, warm_up=1)
    root = math.sqrt(3) / 4  # half of cos 30°
    falling = [0.1, 0.1 * (0.5 + root), 0.075, 0.05, 0.025, 0.1 * (0.5 - root)]
    assert [schedule.rate(step, 2) for step in range(8)] == pytest.approx([0.05, 0.1, *falling])


@pytest.mark.parametrize(("epochs", "warm_up", "steps"), [(3, 0, 6), (7, 1, 5), (5, 4, 3), (200, 5, 2), (2, 1, 1)])
def test_the_rates_are_torchs(epochs, warm_up, steps):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs, expected = torchs_rates(optimiser, warm_up, epochs, steps), []
    for _ in range(epochs * steps):
        expected += theirs.get_last_lr()
        optimiser.step()
        theirs.step()
    schedule = Schedule(epochs=epochs, batch_size=16, lr=0.3, momentum=0, weight_decay=0, warm_up=warm_up)
    assert [schedule.rate(i, steps) for i in range(epochs * steps)] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("epochs", "steps", "lr"), [(5, 54, 0.1), (3, 6, 0.05), (200, 7, 0.1), (1, 1, 0.3)])
def test_without_a_warm_up_the_rates_are_to_the_bit_what_they_were(epochs, steps, lr):
    schedule = Schedule(epochs=epochs, batch_size=16, lr=lr, momentum=0.9, weight_decay=0)
    for i in range(epochs * steps):
        assert schedule.rate(i, steps) == lr / 2 * (1 + math.cos(math.pi * i / (epochs * steps)))


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


def test_the_rate_that_is_named_is_that_of_the_warm_up(tiny, fresh):
    schedule = replace(SCHEDULE, warm_up=1)  # 0.1·3/6 at its third step
    with pytest.raises(Refused, match="loss became nan in epoch 1, step 3, at learning rate 0.05[.] A smaller lr"):
        train(fresh(), tiny, at=2, act=lambda loss: loss * math.nan, schedule=schedule)


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
        ("warm_up", -1),
        ("warm_up", 0.5),
        ("warm_up", True),
        ("warm_up", 3),
        ("warm_up", 4),
    ],
)
def test_a_schedule_refuses_what_it_cannot_be(field, value):
    with pytest.raises(Refused, match=f"^{field} is {value!r}; it must be"):
        replace(SCHEDULE, **{field: value})


def test_a_warm_up_ends_before_the_last_epoch():
    assert replace(SCHEDULE, warm_up=2).warm_up == 2
    with pytest.raises(Refused, match="^warm_up is 3; it must be less than epochs = 3[.]$"):
        replace(SCHEDULE, warm_up=3)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"eps": 0.1}, "selection of an epoch cannot take {'eps': 0.1}: .*missing.*'steps'.* It takes .*eps: float"),
        ({"eps": 0.1, "steps": 2, "alpha": 0.1}, "unexpected.*'alpha'"),
        ({"eps": -0.1, "steps": 2}, "eps is -0.1; it must be a finite number of at least 0"),
        ({"eps": 0.1, "steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        ({"eps": "0.1", "steps": 2}, "eps is '0.1'"),
        ([0.1, 2], "selection of an epoch cannot take"),
        (None, "selection of an epoch cannot take None"),
        ("pgd", "selection of an epoch cannot take pgd"),
    ],
)
def test_a_selection_that_cannot_be_is_refused_in_one_sentence(selection, message):
    with pytest.raises(Refused, match=message) as refusal:
        replace(SCHEDULE, selection=selection)
    assert "\n" not in str(refusal.value)


# ---- the epoch that is kept --------------------------------------------------------------------------------------

SELECTING = replace(SCHEDULE, epochs=4, selection=SELECTION)


def weights(network):
    return copy.deepcopy(network.state_dict())


def watch(network, data, *, schedule=SELECTING, spoil=(), state=None, defense="vanilla"):
    """The rows, the weights behind each epoch, and those at the end; the steps `spoil` climb the loss instead."""
    steps = iter(range(10_000))
    built = defenses.build(defense, DEFENSES[defense])

    def loss(network, batch):
        return built.loss(network, batch) * (-1 if next(steps) in spoil else 1)

    rows, behind = [], []
    for row in training.epochs(
        network, SimpleNamespace(loss=loss), data, schedule, seed=7, state=state, progress=False
    ):
        rows.append(row)
        behind.append(weights(network))
    return rows, behind, weights(network)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_network_is_that_of_the_epoch_that_withstood_most(tiny, fresh):
    rows, behind, at_the_end = watch(fresh(), tiny, spoil=range(18, 24))  # the last epoch unlearns
    attacked = [row[training.ATTACKED] for row in rows]
    best = attacked.index(max(attacked))  # the first of the best
    assert best < 3 and attacked[3] < max(attacked)
    assert equal(at_the_end, behind[best]) and not equal(at_the_end, behind[3])
    assert [row["best_epoch"] for row in rows] == [1 + attacked.index(max(attacked[:epoch])) for epoch in range(1, 5)]


def test_it_withstood_pgd_on_the_validation_images(tiny, fresh):
    network = fresh()
    for row in training.epochs(network, defenses.Vanilla(), tiny, SELECTING, seed=7, progress=False):
        mine = copy.deepcopy(network).eval()
        x, y, index = tiny.validation.pixels(), tiny.validation.labels, tiny.validation.index
        how = {"eps": 0.05, "alpha": 2.5 * 0.05 / 2, "steps": 2, "bounds": tiny.bounds, "seed": 0, "index": index}
        moved = attacks.pgd(mine, x, y, until_broken=True, **how)
        right = (mine(moved).argmax(1) == y) & (mine(x).argmax(1) == y)
        assert row[training.ATTACKED] == pytest.approx(right.float().mean().item())
        assert row["validation_accuracy"] == pytest.approx((mine(x).argmax(1) == y).float().mean().item())
        assert row[training.ATTACKED] <= row["validation_accuracy"]


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.2, 0.7, 0.7, 0.5], [1, 2, 2, 2]), ([0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1]), ([0.1, 0.2, 0.3, 0.3], [1, 2, 3, 3])],
)
def test_of_equal_epochs_the_first_is_kept(tiny, fresh, monkeypatch, accuracies, best):
    found = iter(accuracies)
    validated = training._validated
    monkeypatch.setattr(training, "_validated", lambda *given: validated(*given) | {training.ATTACKED: next(found)})
    rows, behind, at_the_end = watch(fresh(), tiny)
    assert [row["best_epoch"] for row in rows] == best
    assert equal(at_the_end, behind[best[-1] - 1])


def test_without_a_selection_the_last_epoch_is_kept_and_nothing_is_attacked(tiny, fresh):
    rows, behind, at_the_end = watch(fresh(), tiny, schedule=replace(SELECTING, selection={}), spoil=range(18, 24))
    assert equal(at_the_end, behind[3])
    assert not any({training.ATTACKED, "best_epoch"} & set(row) for row in rows)


def test_a_selection_changes_no_epochs_weights(photos, fresh):
    plain, selecting = (
        watch(fresh(), photos, schedule=replace(SELECTING, selection=of), defense="at+sr")[1] for of in ({}, SELECTION)
    )
    assert all(equal(a, b) for a, b in zip(plain, selecting, strict=True))


@pytest.mark.parametrize("at", [3, 11, 14, 20])
def test_an_interrupted_selection_ends_with_the_same_bytes(photos, fresh, tmp_path, monkeypatch, at):
    validated, accuracies = training._validated, [0.2, 0.7, 0.1, 0.7]
    state = tmp_path / "state.pt"

    def run(network, first=0, **how):
        found = iter(accuracies[first:])
        with monkeypatch.context() as patch:
            patch.setattr(training, "_validated", lambda *given: validated(*given) | {training.ATTACKED: next(found)})
            return train(network, photos, schedule=SELECTING, **how)[0]

    whole, resumed = fresh(), fresh()
    rows = run(whole)
    with pytest.raises(Interrupted):
        run(fresh(), at=at, state=state)
    found = run(resumed, first=at // 6, state=state)
    assert training.to_bytes(resumed.state_dict()) == training.to_bytes(whole.state_dict())
    assert [row | {"seconds": 0} for row in found] == [row | {"seconds": 0} for row in rows]
    assert [row["best_epoch"] for row in found] == [1, 2, 2, 2]
    again = fresh(2)  # all four epochs are there: the best of them is taken again
    run(again, first=4, state=state)
    assert same(again, whole)


class Sealed(ImageSet):
    """A data set whose test images nobody may look at."""

    def __getattribute__(self, name):
        if name == "test":
            raise AssertionError("the test images were looked at")
        return super().__getattribute__(name)


@pytest.mark.parametrize("selection", [{}, SELECTION])
def test_test_images_are_never_touched(tiny, fresh, selection):
    sealed = Sealed(**{f.name: getattr(tiny, f.name) for f in fields(ImageSet)})
    with pytest.raises(AssertionError, match="looked at"):
        sealed.test  # noqa: B018
    rows, _ = train(fresh(), sealed, schedule=replace(SCHEDULE, selection=selection))
    assert len(rows) == 3


# ---- after each step ---------------------------------------------------------------------------------------------


@dataclass
class Afterwards:
    """Vanilla training that notes the weights at each loss and after each step, and then shakes them."""

    shake: float = 0.0
    seen: list = field(default_factory=list)

    def loss(self, network, batch):
        self.seen.append(("loss", weights(network)["head.weight"]))
        return cross_entropy(network(batch.images), batch.labels)

    def after_step(self, network):
        self.seen.append(("after", weights(network)["head.weight"]))
        with torch.no_grad():
            network.head.weight += self.shake * torch.randn_like(network.head.weight)


def test_after_step_is_called_once_a_step_when_the_optimiser_has_moved(tiny, fresh):
    own = Afterwards()
    list(training.epochs(fresh(), own, tiny, SCHEDULE, seed=7, progress=False))
    assert [what for what, _ in own.seen] == ["loss", "after"] * 18
    held = [value for _, value in own.seen]
    for before, after in zip(held[::2], held[1::2], strict=True):
        assert not torch.equal(before, after)  # moved by the optimiser
    for after, following in zip(held[1:-1:2], held[2::2], strict=True):
        assert torch.equal(after, following)


def test_what_it_draws_at_random_is_the_same_after_an_interruption(tiny, fresh, tmp_path):
    whole, other, resumed, state = fresh(), fresh(), fresh(), tmp_path / "state.pt"
    how = {"seed": 7, "progress": False}
    list(training.epochs(whole, Afterwards(0.01), tiny, SCHEDULE, **how))
    torch.manual_seed(5)
    list(training.epochs(other, Afterwards(0.01), tiny, SCHEDULE, **how))
    for _ in zip(
        range(2), training.epochs(fresh(), Afterwards(0.01), tiny, SCHEDULE, state=state, **how), strict=False
    ):
        pass  # interrupted behind the second epoch
    torch.manual_seed(6)
    list(training.epochs(resumed, Afterwards(0.01), tiny, SCHEDULE, state=state, **how))
    assert same(whole, other) and same(whole, resumed)


def test_a_defense_that_is_registered_with_an_after_step_is_trained_with_it(tiny, fresh, monkeypatch):
    monkeypatch.setattr(defenses, "DEFENSES", dict(defenses.DEFENSES))
    calls = []

    @defenses.register("clipped")
    @dataclass(frozen=True)
    class Clipped(defenses.Vanilla):
        to: float

        def after_step(self, network):
            calls.append(network.head.weight.abs().max().item())
            with torch.no_grad():
                network.head.weight.clamp_(-self.to, self.to)

    network = fresh()
    list(training.epochs(network, defenses.build("clipped", {"to": 0.01}), tiny, SCHEDULE, seed=7, progress=False))
    assert len(calls) == 18 and max(calls) > 0.01
    assert network.head.weight.abs().max().item() <= 0.01


# ---- passes of a step --------------------------------------------------------------------------------------------

ONE, SEVEN = ({"eps": 0.1, "alpha": 0.1, "steps": steps} for steps in (1, 7))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("vanilla", {}, (1, 1)),
        ("sr", {"lam": 1}, (2, 3)),  # x and the probe; back once for d, once through each
        ("sr", {"lam": 0}, (2, 3)),
        ("sr", {"lam": 1, "preset": "paper", "axes": {"direction": "-"}, "update": "clean"}, (2, 3)),
        ("sr", {"lam": 1, "axes": {"direction": "central"}}, (3, 4)),
        ("loss-l1", {"lam": 1}, (2, 3)),
        ("exact-l1", {"lam": 1}, (1, 3)),  # back for the gradient, and through both ways
        ("l2", {"lam": 1}, (1, 3)),
        ("at", ONE, (2, 2)),
        ("at", ONE | {"random_start": False}, (2, 2)),
        ("at", SEVEN | {"rule": {"name": "atan"}}, (8, 8)),
        ("at+sr", ONE | {"lam": 1}, (3, 4)),
        ("at+sr", SEVEN | {"lam": 1}, (9, 10)),
        ("rat", ONE, (2, 2)),
        ("trades", ONE, (4, 3)),  # the target, a step, x and x′; back in the step and through x and x′
        ("trades", SEVEN, (10, 9)),
        ("trades+sr", ONE | {"lam": 1}, (5, 5)),
        ("trades+sr", SEVEN | {"lam": 1}, (11, 11)),
    ],
)
def test_the_passes_of_a_step_by_hand(name, options, expected):
    assert training.passes(defenses.build(name, options)) == expected


def test_every_defense_is_counted_above():
    (marked,) = (mark for mark in test_the_passes_of_a_step_by_hand.pytestmark if mark.name == "parametrize")
    assert {name for name, *_ in marked.args[1]} == set(defenses.DEFENSES)


def test_the_passes_of_a_defense_of_ones_own_and_no_chance_is_used():
    def loss(network, batch):
        with torch.no_grad():
            network(batch.images)
        logits = network(batch.images) + network(batch.images.flip(3))
        return cross_entropy(logits, batch.labels)

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    found = training.passes(SimpleNamespace(loss=loss))
    assert (found.forward, found.backward) == (3, 2)
    assert torch.equal(torch.rand(1), expected)


# ---- the progress bar --------------------------------------------------------------------------------------------


@pytest.fixture
def bar(monkeypatch):
    """The bar says whatever it has to say, however fast it is."""
    monkeypatch.setattr(training, "tqdm", partial(tqdm, mininterval=0, miniters=1, ncols=150))


def test_the_bar_tells_loss_validation_accuracy_and_the_time_left(tiny, fresh, bar, capsys):
    rows = list(training.epochs(fresh(), defenses.Vanilla(), tiny, SCHEDULE, seed=7))
    told = [line for line in capsys.readouterr().err.split("\r") if "loss=" in line]
    first, last = told[0], told[-1]
    assert "epoch 1/3" in first and "validation" not in first and "1/18 [" in first
    assert "epoch 3/3" in last and "18/18 [" in last
    assert f"loss={rows[2]['loss']:.3f}" in last
    assert f"validation={rows[1]['validation_accuracy']:.1%}" in last
    assert all(re.search(r"\[\d\d:\d\d<\d\d:\d\d, ", line) for line in told)


def test_the_bar_of_a_resumed_training_starts_where_it_was(tiny, fresh, bar, tmp_path, capsys):
    state = tmp_path / "state.pt"
    with pytest.raises(Interrupted):
        train(fresh(), tiny, at=8, state=state)
    capsys.readouterr()
    list(training.epochs(fresh(), defenses.Vanilla(), tiny, SCHEDULE, seed=7, state=state))
    told = [line for line in capsys.readouterr().err.split("\r") if "loss=" in line]
    assert "epoch 2/3" in told[0] and "7/18 [" in told[0] and "validation=" in told[0]


def test_without_progress_there_is_no_bar(tiny, fresh, bar, capsys):
    train(fresh(), tiny)
    assert capsys.readouterr() == ("", "")
