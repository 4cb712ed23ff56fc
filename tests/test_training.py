"""A step and the loop: against torch's SGD and schedules, resumed to the bit, selecting an epoch, counting passes."""

import copy
import hashlib
import math
import re
from dataclasses import dataclass, fields, replace
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
from paperlib.training import defenses, loop
from paperlib.training.defenses import Batch
from paperlib.training.loop import ATTACKED, Schedule

SCHEDULE = Schedule(epochs=3, batch_size=16, lr=0.1, momentum=0.9, weight_decay=5e-4)  # 100 images: 6 steps an epoch
SELECTION = {"eps": 0.05, "steps": 2}
SELECTING = replace(SCHEDULE, epochs=4, selection=SELECTION)
DEFENSES = {
    "vanilla": {},
    "at+sr": {"eps": 0.1, "alpha": 0.1, "steps": 2, "lam": 0.01},
    "rat": {"eps": 0.1, "alpha": 0.1, "steps": 1, "beta": 0.05},
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

    def after_step(self, network):
        defenses.after_step(self.defense, network)


def interrupt(loss):
    raise Interrupted


def train(network, data, *, name="vanilla", at=-1, act=interrupt, schedule=SCHEDULE, seed=7, state=None):
    """Whatever `loop.epochs` yields, and how many losses it asked for."""
    watched = Watched(defenses.build(name, DEFENSES[name]), at, act)
    rows = list(training.epochs(network, watched, data, schedule, seed=seed, state=state, progress=False))
    return rows, watched.steps


def weights(network):
    return copy.deepcopy(network.state_dict())


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def same(a, b):
    return equal(a.state_dict(), b.state_dict())


def timeless(rows):
    return [row | {"seconds": 0} for row in rows]


@pytest.fixture
def photos(tiny):
    """`tiny` as if crops and mirror images suited it, so that augmentation draws chance as well."""
    return replace(tiny, crops_and_flips=True)


# ---- steps and rates ---------------------------------------------------------------------------------------------


def test_a_step_moves_the_weights_as_one_written_out_by_hand(tiny, fresh):
    ours, theirs, calls = fresh(), fresh(), []
    defense = SimpleNamespace(loss=defenses.Vanilla().loss, after_step=calls.append)
    step = loop.Step(ours.train(), defense, SCHEDULE)
    optimiser = torch.optim.SGD(theirs.train().parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for number, (x, y, index) in enumerate(tiny.train.batches(20)):
        rate = 0.1 / (1 + number)
        step.set_rate(rate)
        images = x.clone().requires_grad_()
        step.move(step.loss(Batch(images, y, index, tiny.bounds, seed=0)))
        assert images.grad is None  # of the weights alone the gradient is taken
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        cross_entropy(theirs(x), y).backward()
        optimiser.step()
        assert same(ours, theirs) and len(calls) == number + 1
    assert number == 4 and calls[0] is ours and not same(ours, fresh())


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
    rows, losses_asked = train(ours, data, schedule=replace(SCHEDULE, warm_up=warm_up))
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    rates = torchs_rates(optimiser, warm_up, 3, 6)
    assert [row["epoch"] for row in rows] == [1, 2, 3] and losses_asked == 3 * 6
    for epoch in range(3):
        draw, losses = torch.Generator().manual_seed(7 * 1_000_003 + epoch), []
        theirs.train()
        for x, y, _ in list(data.train.batches(16, draw))[:6]:  # the last batch is not whole
            optimiser.zero_grad()
            loss = cross_entropy(theirs(sets.augment(x, draw) if augmented else x), y)
            loss.backward()
            optimiser.step()
            (rate,) = rates.get_last_lr()
            rates.step()
            losses.append(loss.item())
        assert rows[epoch]["loss"] == pytest.approx(sum(losses) / 6, rel=1e-4)
        assert rows[epoch]["lr"] == pytest.approx(rate, rel=1e-9)  # of the epoch's last step
        assert rows[epoch]["seconds"] > 0
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    right = ours.eval()(tiny.validation.pixels()).argmax(1) == tiny.validation.labels
    assert rows[2]["validation_accuracy"] == right.float().mean().item()


@pytest.mark.parametrize(("epochs", "warm_up", "steps"), [(3, 0, 6), (7, 1, 5), (5, 4, 3), (200, 5, 2), (2, 1, 1)])
def test_the_rates_are_torchs_and_without_a_warm_up_the_formula_to_the_bit(epochs, warm_up, steps):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs, expected = torchs_rates(optimiser, warm_up, epochs, steps), []
    for _ in range(epochs * steps):
        expected += theirs.get_last_lr()
        optimiser.step()
        theirs.step()
    schedule = Schedule(epochs=epochs, batch_size=16, lr=0.3, momentum=0, weight_decay=0, warm_up=warm_up)
    assert [schedule.rate(i, steps) for i in range(epochs * steps)] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    for i in range(epochs * steps):
        exact = 0.3 / 2 * (1 + math.cos(math.pi * i / (epochs * steps)))
        assert replace(schedule, warm_up=0).rate(i, steps) == exact


# ---- chance and interruptions ------------------------------------------------------------------------------------


def test_the_seed_decides_everything(tiny, photos, fresh):
    runs = []
    for data, seed in ((tiny, 7), (tiny, 7), (tiny, 8), (photos, 7)):
        torch.manual_seed(len(runs))  # torch's global chance must not matter
        runs.append(fresh())
        train(runs[-1], data, name="at+sr", seed=seed)
    assert same(runs[0], runs[1]) and not same(runs[0], runs[2]) and not same(runs[0], runs[3])
    assert training.to_bytes(runs[0].state_dict()) == training.to_bytes(runs[1].state_dict())


@pytest.mark.parametrize("name", DEFENSES)
@pytest.mark.parametrize("at", [3, 6, 8, 17])  # in the first epoch, at its end, in the second, at the very last step
def test_an_interrupted_training_ends_with_the_same_weights_to_the_bit(photos, fresh, tmp_path, name, at):
    whole, resumed, state = fresh(), fresh(0 if at < 6 else 1), tmp_path / "state.pt"  # a state brings its weights
    rows, _ = train(whole, photos, name=name)
    with pytest.raises(Interrupted):
        train(fresh(), photos, name=name, at=at, state=state)
    assert state.exists() == (at >= 6)
    found, steps = train(resumed, photos, name=name, state=state)
    assert same(whole, resumed)
    assert steps == 18 - at // 6 * 6  # whole epochs are not trained again
    assert timeless(found) == timeless(rows)


def test_two_interruptions_do_no_more_harm_than_one_and_what_is_finished_is_not_trained_again(photos, fresh, tmp_path):
    whole, state = fresh(), tmp_path / "state.pt"
    train(whole, photos)
    for at in (8, 7):  # in the second epoch, then in the third
        with pytest.raises(Interrupted):
            train(fresh(), photos, at=at, state=state)
    for steps in (6, 0):
        resumed = fresh(1)
        assert train(resumed, photos, state=state)[1] == steps
        assert same(whole, resumed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data, weight: b"",
        lambda data, weight: data[: len(data) // 2],
        lambda data, weight: bytes([data[0] ^ 1]) + data[1:],
        lambda data, weight: data.replace(weight, weight[:2] + bytes([weight[2] ^ 0x10]) + weight[3:]),
    ],
    ids=["empty", "half", "first bit", "one bit of a weight"],
)
def test_a_damaged_state_is_set_aside_and_the_training_starts_anew(tiny, fresh, tmp_path, damage, capsys):
    network, anew, state = fresh(), fresh(), tmp_path / "state.pt"
    _, steps = train(network, tiny, state=state)
    data = state.read_bytes()
    state.write_bytes(damage(data, network.head.weight.detach().numpy().tobytes()))
    damaged = state.read_bytes()
    assert damaged != data
    assert train(anew, tiny, state=state)[1] == steps > 0 and same(anew, network)
    assert state.with_name("state.pt.damaged").read_bytes() == damaged
    said = capsys.readouterr().err
    assert said.endswith("state.pt is damaged. This training starts anew; the old file is kept as state.pt.damaged.\n")
    assert said.count("\n") == 1 and "weights_only" not in said  # torch's own text advises to load it unsafely


@pytest.mark.parametrize("content", [{"network": print}, {"network": {}}, [1]], ids=["code", "too little", "a list"])
def test_a_state_of_other_content_is_damaged(tiny, fresh, tmp_path, content):
    """Its checksum is right; nothing in it is executed."""
    state, data = tmp_path / "state.pt", training.to_bytes(content)
    state.write_bytes(hashlib.sha256(data).digest() + data)
    assert loop._resume(loop.Step(fresh(), None, SCHEDULE), state, "cpu") == ([], None)
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt.damaged"]


def test_a_state_of_another_network_is_refused(tiny, fresh, tmp_path):
    state = tmp_path / "state.pt"
    train(fresh(), tiny, state=state)
    with pytest.raises(Refused, match="state.pt belongs to another network: .*Missing key"):
        train(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), tiny, state=state)


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


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_of_several_losses_the_one_that_is_not_finite_is_named():
    # on a GPU losses are looked at in groups, here the last four of eleven steps
    losses = [torch.tensor(value) for value in (0.5, 0.25, math.inf, math.nan)]
    with pytest.raises(Refused, match="became inf in epoch 3, step 10, at learning rate 0.1"):
        loop._finite(losses, epoch=2, step=10, lr=0.1)
    assert loop._finite(losses[:2], epoch=2, step=10, lr=0.1) == 0.75


def test_a_split_on_another_device_keeps_its_index(tiny):
    moved = tiny.train.to("meta")
    assert moved.images.device.type == moved.labels.device.type == "meta" and moved.index is tiny.train.index
    assert torch.equal(tiny.train.to("cpu").images, tiny.train.images)


@pytest.mark.parametrize(
    ("value", "at", "warm_up", "place", "lr"),
    [
        (math.nan, 8, 0, "epoch 2, step 3", 0.05 * (1 + math.cos(math.pi * 8 / 18))),
        (math.inf, 8, 0, "epoch 2, step 3", 0.05 * (1 + math.cos(math.pi * 8 / 18))),
        (math.nan, 2, 1, "epoch 1, step 3", 0.05),  # 0.1·3/6 in the warm-up
    ],
)
def test_a_loss_that_is_not_finite_is_refused_by_place_and_rate(tiny, fresh, tmp_path, value, at, warm_up, place, lr):
    network, state, schedule = fresh(), tmp_path / "state.pt", replace(SCHEDULE, warm_up=warm_up)
    message = re.escape(f"The loss became {value} in {place}, at learning rate {lr:.4g}. A smaller lr or lam may help.")
    with pytest.raises(Refused, match=message):
        train(network, tiny, at=at, act=lambda loss: loss * value, schedule=schedule, state=state)
    assert all(weight.isfinite().all() for weight in network.parameters())
    assert train(fresh(), tiny, schedule=schedule, state=state)[1] == 18 - at // 6 * 6  # what was good is kept


def test_a_batch_that_the_data_does_not_fill_is_refused(tiny, fresh):
    with pytest.raises(Refused, match="100 training images do not fill one batch of 101"):
        train(fresh(), tiny, schedule=replace(SCHEDULE, batch_size=101))
    train(fresh(), tiny, schedule=replace(SCHEDULE, batch_size=100, epochs=1))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("epochs", 0, "it must be a whole number of at least 1[.]$"),
        ("epochs", 1.5, "it must be a whole number"),
        ("batch_size", 1, "it must be a whole number of at least 2[.]$"),
        ("batch_size", 16.0, "it must be a whole number"),
        ("lr", 0, "it must be a finite number above 0[.]$"),
        ("lr", math.nan, "it must be a finite number"),
        ("momentum", -0.1, "it must be a finite number of at least 0[.]$"),
        ("weight_decay", -1, "it must be a finite number of at least 0[.]$"),
        ("weight_decay", "5e-4", "it must be a finite number"),
        ("warm_up", -1, "it must be a whole number of at least 0[.]$"),
        ("warm_up", 0.5, "it must be a whole number"),
        ("warm_up", True, "it must be a whole number"),
        ("warm_up", 3, "it must be less than epochs = 3[.]$"),
    ],
)
def test_a_schedule_refuses_what_it_cannot_be(name, value, rule):
    with pytest.raises(Refused, match=f"^{name} is {value!r}; {rule}"):
        replace(SCHEDULE, **{name: value})
    assert replace(SCHEDULE, warm_up=2).warm_up == 2  # it ends before the last epoch


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"eps": 0.1}, "selection of an epoch cannot take {'eps': 0.1}: .*missing.*'steps'.* It takes .*eps: float"),
        (SELECTION | {"alpha": 0.1}, "unexpected.*'alpha'"),
        (SELECTION | {"eps": -0.1}, "eps is -0.1; it must be a finite number of at least 0"),
        (SELECTION | {"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        (SELECTION | {"eps": "0.1"}, "eps is '0.1'"),
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


def watch(network, data, *, schedule=SELECTING, spoil=(), defense="vanilla"):
    """The rows, the weights behind each epoch, and those at the end; the steps `spoil` climb the loss instead."""
    steps = iter(range(10_000))
    built = defenses.build(defense, DEFENSES[defense])

    def loss(network, batch):
        return built.loss(network, batch) * (-1 if next(steps) in spoil else 1)

    rows, behind = [], []
    for row in training.epochs(network, SimpleNamespace(loss=loss), data, schedule, seed=7, progress=False):
        rows.append(row)
        behind.append(weights(network))
    return rows, behind, weights(network)


def test_the_network_is_that_of_the_epoch_that_withstood_most(tiny, fresh):
    rows, behind, at_the_end = watch(fresh(), tiny, spoil=range(18, 24))  # the last epoch unlearns
    attacked = [row[ATTACKED] for row in rows]
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
        assert row[ATTACKED] == pytest.approx(right.float().mean().item())
        assert row["validation_accuracy"] == pytest.approx((mine(x).argmax(1) == y).float().mean().item())
        assert row[ATTACKED] <= row["validation_accuracy"]


@pytest.fixture
def accuracies(monkeypatch):
    """A function of the accuracies under attack that epochs shall have."""
    validated = loop._validated

    def pretend(values):
        values = iter(values)
        monkeypatch.setattr(loop, "_validated", lambda *given: validated(*given) | {ATTACKED: next(values)})

    return pretend


@pytest.mark.parametrize(
    ("attacked", "best"),
    [([0.2, 0.7, 0.7, 0.5], [1, 2, 2, 2]), ([0.0, 0.0, 0.0, 0.0], [1, 1, 1, 1]), ([0.1, 0.2, 0.3, 0.3], [1, 2, 3, 3])],
)
def test_of_equal_epochs_the_first_is_kept(tiny, fresh, accuracies, attacked, best):
    accuracies(attacked)
    rows, behind, at_the_end = watch(fresh(), tiny)
    assert [row["best_epoch"] for row in rows] == best
    assert equal(at_the_end, behind[best[-1] - 1])


def test_a_selection_changes_no_epochs_weights_and_without_one_the_last_is_kept(photos, fresh):
    selecting = watch(fresh(), photos, defense="at+sr")
    rows, behind, at_the_end = watch(fresh(), photos, schedule=replace(SELECTING, selection={}), defense="at+sr")
    assert all(equal(a, b) for a, b in zip(selecting[1], behind, strict=True))
    assert equal(at_the_end, behind[3])
    assert not any({ATTACKED, "best_epoch"} & set(row) for row in rows)


@pytest.mark.parametrize("at", [3, 11, 14, 20])
def test_an_interrupted_selection_ends_with_the_same_bytes(photos, fresh, tmp_path, accuracies, at):
    state = tmp_path / "state.pt"

    def run(network, first=0, **how):
        accuracies([0.2, 0.7, 0.1, 0.7][first:])
        return train(network, photos, schedule=SELECTING, **how)[0]

    whole, resumed = fresh(), fresh()
    rows = run(whole)
    with pytest.raises(Interrupted):
        run(fresh(), at=at, state=state)
    found = run(resumed, first=at // 6, state=state)
    assert training.to_bytes(resumed.state_dict()) == training.to_bytes(whole.state_dict())
    assert timeless(found) == timeless(rows)
    assert [row["best_epoch"] for row in found] == [1, 2, 2, 2]
    again = fresh(2)  # all four epochs are there: the best of them is taken again
    run(again, first=4, state=state)
    assert same(again, whole)


class Sealed(ImageSet):
    """A data set whose test images nobody may look at."""

    def __getattribute__(self, name):
        if name == "test" and "sealed" in self.__dict__:
            raise AssertionError("the test images were looked at")
        return super().__getattribute__(name)


@pytest.mark.parametrize("selection", [{}, SELECTION])
def test_test_images_are_never_touched(tiny, fresh, selection):
    sealed = Sealed(**{f.name: getattr(tiny, f.name) for f in fields(ImageSet)})
    object.__setattr__(sealed, "sealed", True)
    with pytest.raises(AssertionError, match="looked at"):
        sealed.test  # noqa: B018
    rows, _ = train(fresh(), sealed, schedule=replace(SCHEDULE, selection=selection))
    assert len(rows) == 3


# ---- after each step ---------------------------------------------------------------------------------------------


class Afterwards(defenses.Vanilla):
    """Vanilla training that counts its steps and shakes the weights after each."""

    steps = 0

    def after_step(self, network):
        self.steps += 1
        with torch.no_grad():
            network.head.weight += 0.01 * torch.randn_like(network.head.weight)


def test_what_after_step_draws_at_random_is_the_same_after_an_interruption(tiny, fresh, tmp_path):
    whole, other, resumed, state = fresh(), fresh(), fresh(), tmp_path / "state.pt"
    how, defense = {"seed": 7, "progress": False}, Afterwards()
    list(training.epochs(whole, defense, tiny, SCHEDULE, **how))
    assert defense.steps == 18
    torch.manual_seed(5)
    list(training.epochs(other, Afterwards(), tiny, SCHEDULE, **how))
    interrupted = training.epochs(fresh(), Afterwards(), tiny, SCHEDULE, state=state, **how)
    for _ in range(2):
        next(interrupted)
    torch.manual_seed(6)
    list(training.epochs(resumed, Afterwards(), tiny, SCHEDULE, state=state, **how))
    plain = fresh()
    train(plain, tiny)
    assert same(whole, other) and same(whole, resumed) and not same(whole, plain)


# ---- passes of a step --------------------------------------------------------------------------------------------

ONE, SEVEN = ({"eps": 0.1, "alpha": 0.1, "steps": steps} for steps in (1, 7))
PASSES = [  # training, options, (forward, backward)
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
    ("at-pgd", SEVEN, (8, 8)),
    ("trades+sr", ONE | {"lam": 1}, (5, 5)),
    ("trades+sr", SEVEN | {"lam": 1}, (11, 11)),
]


@pytest.mark.parametrize(("name", "options", "expected"), PASSES)
def test_the_passes_of_a_step_by_hand(name, options, expected):
    assert training.passes(defenses.build(name, options)) == expected


def test_every_defense_is_counted_above():
    assert {name for name, *_ in PASSES} == set(defenses.DEFENSES)


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


def test_the_bar_tells_epoch_loss_validation_accuracy_and_the_time_left(tiny, fresh, monkeypatch, tmp_path, capsys):
    # as fast as it is, the bar shows every step
    monkeypatch.setattr(loop, "tqdm", partial(tqdm, mininterval=0, miniters=1, ncols=150))
    state = tmp_path / "state.pt"
    with pytest.raises(Interrupted):
        train(fresh(), tiny, at=8, state=state)
    assert capsys.readouterr() == ("", "")  # without progress there is none
    lines, rows = [], []
    for kept in (None, state):
        rows = list(training.epochs(fresh(), defenses.Vanilla(), tiny, SCHEDULE, seed=7, state=kept))
        lines.append([line for line in capsys.readouterr().err.split("\r") if "loss=" in line])
    (first, *_, last), (resumed, *_) = lines
    assert "epoch 1/3" in first and "validation" not in first and "1/18 [" in first
    assert "epoch 3/3" in last and "18/18 [" in last
    assert f"loss={rows[2]['loss']:.3f}" in last
    assert f"validation={rows[1]['validation_accuracy']:.1%}" in last
    assert "epoch 2/3" in resumed and "7/18 [" in resumed and "validation=" in resumed
    assert all(re.search(r"\[\d\d:\d\d<\d\d:\d\d, ", line) for line in lines[0])
