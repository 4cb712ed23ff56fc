"""Evaluations that are kept: the exhaustive run as oracle, nothing attacked twice, AutoAttack beside the worst case."""

import itertools
import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchattacks
from conftest import stripes

from paperlib import networks, paths
from paperlib.attacks import evaluation, protocols
from paperlib.attacks.attack import Attack, standard
from paperlib.attacks.ensembles import Beginning, Ensemble, Transfer
from paperlib.data import images
from paperlib.measures import statistics
from paperlib.store import checkpoints, evaluations
from paperlib.store.evaluations import size
from paperlib.store.experiment import Experiment
from paperlib.theory.gradients import in_batches
from paperlib.training.loop import Schedule

SCHEDULE = Schedule(epochs=12, batch_size=10, lr=0.1, momentum=0.9, weight_decay=5e-4)  # as conftest trains `network`
MAIN = Experiment({"name": "tiny"}, "conv-2-4", 4, 1.0, "triangle", "float32", "vanilla", {}, SCHEDULE, 0)
SOURCE = replace(MAIN, seed=1, schedule=replace(SCHEDULE, epochs=6))
DRAWING = replace(MAIN, network="poisson-conv-2-4", T=8, schedule=replace(SCHEDULE, epochs=6))
SAMPLES = 240
EPS = 0.06


@pytest.fixture(scope="module")
def larger(tiny):
    """`tiny` with more to be tested on."""
    return replace(tiny, test=stripes(SAMPLES, 120))


def trained(experiment):
    return checkpoints.trained(experiment, device="cpu", progress=False)


@pytest.fixture(scope="module")
def trained_once(larger, tmp_path_factory):
    """A folder in which the three networks are trained."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load", lambda **_: larger)
        patch.setattr(paths, "CHECKPOINTS", folder)
        for experiment in (MAIN, SOURCE, DRAWING):
            trained(experiment)
    return folder


@pytest.fixture
def store(trained_once, larger, tmp_path, monkeypatch):
    """A copy of it for one test, so far without evaluations."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(trained_once, folder)
    monkeypatch.setattr(images, "load", lambda **_: larger)
    monkeypatch.setattr(paths, "CHECKPOINTS", folder)
    return folder


@pytest.fixture
def passes(monkeypatch):
    """One entry for each forward pass of any network."""
    calls, real = [], networks.Network.forward
    monkeypatch.setattr(networks.Network, "forward", lambda self, x: calls.append(len(x)) or real(self, x))
    return calls


@pytest.fixture
def attacked(monkeypatch):
    """(attack, whether it was transferred, which samples were wanted) for each time that something was attacked."""
    calls, real = [], evaluation.attacked

    def recorded(network, samples, attack, wanted, *, source=None, **options):
        calls.append((attack, source is not None, wanted.tolist()))
        return real(network, samples, attack, wanted, source=source, **options)

    monkeypatch.setattr(evaluation, "attacked", recorded)
    return calls


def evaluated(attack, experiment=MAIN, samples=120):
    (one,) = evaluations.evaluated([experiment], [attack], samples=samples, device="cpu", progress=False)
    return one


def is_evaluated(attack, experiment=MAIN, samples=120):
    return evaluations.is_evaluated(experiment, attack, samples=samples, split="test")


def forget(store):
    for folder in store.glob("*/evaluations"):
        shutil.rmtree(folder)


def contents(store):
    """What is kept of each attack on MAIN, clean images aside."""
    files = sorted((store / MAIN.key / "evaluations").glob("*.json"))
    return [(file, content) for file in files if (content := json.loads(file.read_text()))["attack"]]


def pgd(eps=EPS, steps=4, rule=None, **options):
    one = standard("pgd", eps, steps=steps, rule=rule)
    return replace(one, options=one.options | options)


TRANSFER = Transfer(protocols.transferable(255 * EPS, steps=4), SOURCE)
MEMBERS = [
    standard("uniform", EPS),
    standard("fgsm", EPS),
    pgd(),
    pgd(rule={"name": "atan", "gamma": 2.0}),
    standard("sa_pgd", EPS, steps=4, rule={"name": "assg"}),
    pgd(rule={"name": "pdsg"}),
    Attack("apgd", EPS, {"steps": 5, "loss": "dlr"}),
    standard("square", EPS, queries=8),
    TRANSFER,
    Transfer(Attack("pgd", EPS, {"alpha": EPS / 2, "steps": 4}, {"name": "assg"}), SOURCE),
]


def alone(experiment, data, member):
    """The flags and passes that one member leaves of everything, with nothing kept and nobody left out, (120,) each."""
    flags, passes = np.ones(120, dtype=bool), np.zeros(120)
    attack, source = (member.attack, trained(member.source)) if isinstance(member, Transfer) else (member, None)
    everyone = torch.ones(120, dtype=torch.bool)
    for outcome in evaluation.attacked(trained(experiment), data.test.take(120), attack, everyone, source=source):
        flags[outcome.rows] = outcome.flags
        passes[outcome.rows] = outcome.forward + outcome.backward
    return flags, passes


@pytest.fixture
def exhaustive(store, larger):
    """The clean flags (120,), and what every one of `MEMBERS` leaves alone."""
    clean = evaluation.flags(trained(MAIN), larger.test.take(120)).numpy()
    return clean, [alone(MAIN, larger, member)[0] for member in MEMBERS]


# The worst of several ----------------------------------------------------------------------------------------------


def test_an_ensemble_leaves_what_every_member_leaves_in_any_order(store, exhaustive):
    clean, flags = exhaustive
    worst = clean & np.logical_and.reduce(flags)
    assert 0 < worst.sum() < min((clean & one).sum() for one in flags)  # no member alone is the worst case
    shuffled = [np.random.default_rng(seed).permutation(MEMBERS).tolist() for seed in range(3)]
    for fresh in (True, False):  # and with everything known that those before it left behind
        for members in (MEMBERS, MEMBERS[::-1], *shuffled):
            if fresh:
                forget(store)
            assert evaluated(Ensemble("worst", members)).flags.tolist() == worst.tolist()
    for count in range(1, len(MEMBERS) + 1):  # each part of it is the worst case so far
        so_far = evaluated(Ensemble("so far", MEMBERS[:count], {"up_to": "some"}))
        assert so_far.flags.tolist() == (clean & np.logical_and.reduce(flags[:count])).tolist()


def test_a_network_that_draws_is_judged_by_the_draws_under_attack_alone(store, larger):
    members = [standard("uniform", 0.02), pgd(0.02), pgd(0.02, eot=2)]
    worst = evaluated(Ensemble("worst", members), DRAWING)
    expected = np.logical_and.reduce([alone(DRAWING, larger, member)[0] for member in members])
    assert worst.flags.tolist() == expected.tolist() and 0 < expected.sum() < 120
    clean = evaluated(None, DRAWING)
    assert worst.stochastic and not evaluated(None).stochastic
    assert (worst.flags & ~clean.flags).any()  # wrong on clean images by chance, and yet right each time under attack


def test_a_radius_is_kept_under_the_name_of_its_unit_and_labels_name_training_and_attack(store):
    of_images, of_events = (SimpleNamespace(is_of_events=events) for events in (False, True))
    flips, within = standard("sparse_flips", 20), pgd(0.2)
    assert [size(e, None) for e in (of_images, of_events)] == [{"eps_255": 0.0}, {"eps_counts": 0.0}]
    assert [size(e, within) for e in (of_images, of_events)] == [{"eps_255": 51.0}, {"eps_counts": 0.2}]
    for attack in (flips, Transfer(flips, SOURCE), Ensemble("one", [flips])):
        assert size(of_events, attack) == {"flips": 20}
    one = evaluated(pgd())
    assert one.labels == {"training": "vanilla", "attack": "pgd", "steps": 4, "eps_255": 15.3}
    assert evaluated(None).labels == {"training": "vanilla", "attack": "clean", "eps_255": 0.0}


def test_every_network_is_evaluated_under_every_attack_of_its_own(store):
    given = {MAIN.key: [None, pgd()], SOURCE.key: [standard("fgsm", EPS)]}
    several = evaluations.evaluated([MAIN, SOURCE], lambda e: given[e.key], samples=60, device="cpu", progress=False)
    assert [(one.experiment, one.attack) for one in several] == [
        *((MAIN, attack) for attack in given[MAIN.key]),
        (SOURCE, given[SOURCE.key][0]),
    ]


# Nothing twice -----------------------------------------------------------------------------------------------------


def test_a_member_is_shown_what_the_earlier_ones_left(store, exhaustive, attacked):
    left, flags = exhaustive
    evaluated(Ensemble("worst", MEMBERS))
    for (attack, transferred, wanted), member, own in zip(attacked, MEMBERS, flags, strict=True):
        assert transferred == isinstance(member, Transfer) and attack == (member.attack if transferred else member)
        assert wanted == left.tolist()
        left = left & own


def test_what_is_known_is_not_attacked_again_and_completed_where_it_is_missing(store, exhaustive, attacked):
    clean, flags = exhaustive
    weak, strong = MEMBERS[1:3]
    evaluated(Ensemble("first", [weak, strong]))
    assert [wanted for *_, wanted in attacked] == [clean.tolist(), (clean & flags[1]).tolist()]
    attacked.clear()
    one = evaluated(strong)
    assert attacked == [(strong, False, (clean & ~flags[1]).tolist())]
    assert one.flags.tolist() == (clean & flags[2]).tolist()
    attacked.clear()
    for members in ([weak, strong], [strong, weak], [weak], [strong]):  # both are known of all that is right
        evaluated(Ensemble("second", members))
    assert not attacked


@pytest.mark.parametrize("experiment", [MAIN, DRAWING], ids=["direct", "poisson"])
def test_flags_and_passes_do_not_depend_on_what_was_known_before(store, experiment):
    a, b, c = pgd(), standard("fgsm", EPS), pgd(rule={"name": "assg"})
    d = standard("overwritten_eot", EPS, steps=2)
    wanted = [Ensemble("one", [a, b, c, d]), Ensemble("two", [d, c, b]), Ensemble("three", [b, a]), a, b, c, d]
    results = []
    for order in itertools.islice(itertools.permutations(range(len(wanted))), 0, 5040, 720):
        forget(store)
        for _ in range(2):  # computed, and then from the files
            known = {i: evaluated(wanted[i], experiment) for i in order}
            results.append(
                [(e.flags.tolist(), e.passes.tolist(), e.vanished, e.strayed) for _, e in sorted(known.items())]
            )
    assert all(one == results[0] for one in results)


def test_passes_are_those_that_the_samples_still_standing_cost(store, larger, exhaustive):
    standing, _ = exhaustive
    expected, members = np.zeros(120), [standard("fgsm", EPS), pgd(), standard("square", EPS, queries=9)]
    for member in members:
        flags, passes = alone(MAIN, larger, member)
        expected += passes * standing
        standing = standing & flags
    assert evaluated(Ensemble("worst", members)).passes.tolist() == expected.tolist()
    assert len(set(expected)) > 5


def test_the_vanished_share_of_what_is_kept_is_one_of_gradients_and_not_of_forward_passes(store, larger):
    """A checked mask of the gradient rests on it; every sample takes one forward pass more than gradients."""
    attack = pgd(rule={"name": "rectangle", "gamma": 0.05})
    (outcome,) = evaluation.attacked(
        trained(MAIN), larger.test.take(120), attack, torch.from_numpy(evaluated(None).flags)
    )
    share = (outcome.vanished.sum() / outcome.backward.sum()).item()
    for _ in ("computed", "read"):
        assert evaluated(attack).vanished == pytest.approx(share, rel=1e-6)
    assert 0.05 < share < 1 and outcome.forward.sum() > outcome.backward.sum() > 0


@pytest.mark.parametrize("rule", [{}, {"name": "rectangle", "gamma": 0.05}], ids=["", "narrow"])
def test_a_beginning_of_a_run_leaves_and_costs_what_it_would_alone(store, attacked, rule):
    counts, results = range(1, 8), []
    for attack in (Attack, partial(Beginning, run_to=9)):
        kind = [attack("pgd", EPS, {"alpha": EPS / 6, "steps": n, "until_broken": True}, rule) for n in counts]
        results.append([evaluated(one) for one in (*kind, Ensemble("worst", kind))])
        attacked[:-1] = []  # one run gave all beginnings
    assert [attack.options["steps"] for attack, *_ in attacked] == [9]
    for one, other in zip(*results, strict=True):
        assert one.flags.tolist() == other.flags.tolist() and one.passes.tolist() == other.passes.tolist()
        assert (one.vanished, one.strayed, one.labels) == (other.vanished, other.strayed, other.labels)
    shares = [one.flags.mean() for one in results[0]]
    assert len(set(shares)) > 4 if not rule else 0 < results[0][3].vanished < 1


@pytest.mark.parametrize("eps", [0.03, 0.06, 0.1, 0.2])
@pytest.mark.parametrize("kind", ["four rules", "widths"])
def test_the_work_shrinks_with_what_is_left(store, larger, kind, eps):
    steps = 20
    if kind == "four rules":
        fgsm = standard("fgsm", eps)  # first, as in every protocol: what breaks at once costs next to nothing
        members = [fgsm, *(pgd(eps, steps=steps, rule=rule) for rule in protocols.FOUR_RULES)]
    else:
        members = [pgd(eps, steps=steps), *protocols.widths(255 * eps, [0.5, 1, 2], steps=steps)]
    worst = evaluated(Ensemble("worst", members), samples=SAMPLES)
    exhaustive = SAMPLES * sum(2 * one.gradients + 1 for one in members)  # no sample ever stops; and one last look
    one = replace(members[-1], options={k: v for k, v in members[-1].options.items() if k != "until_broken"})
    outcomes = evaluation.attacked(trained(MAIN), larger.test, one, torch.ones(SAMPLES, dtype=torch.bool))
    assert sum(float((o.forward + o.backward).sum()) for o in outcomes) == SAMPLES * (2 * steps + 1)
    share, accuracy = worst.passes.sum() / exhaustive, worst.flags.mean()
    assert share <= (0.2 if accuracy <= 0.05 else accuracy + 0.1), (share, accuracy)


def test_the_queries_of_the_strongest_attack_are_read_off_its_passes(store, larger):
    apgd, strongest = protocols.rungs(255 * 0.06, steps=3, long_steps=4, queries=40)[-2:]
    before, after = evaluated(apgd, samples=SAMPLES), evaluated(strongest, samples=SAMPLES)
    spent, by_square = protocols.queries_spent(strongest, after.passes), before.flags & ~after.flags
    assert after.flags.any() and by_square.any() and (~before.flags & (after.passes > 1)).any()
    assert set(spent[after.flags]) == {40} and set(spent[~before.flags]) == {0}
    # the first two queries are images that did not break; a shorter search would have its own windows
    assert spent[by_square].min() >= 3 and spent[by_square].max() <= 40 and len(set(spent[by_square])) > 1


# What is kept ------------------------------------------------------------------------------------------------------


def sealed(content):
    """The text of a file whose checksum is right."""
    return json.dumps(content | {"sha256": evaluations._checksum(content)})


def changed(**values):
    return lambda text: sealed(json.loads(text) | values)


def without(name):
    return lambda text: sealed({k: v for k, v in json.loads(text).items() if k != name})


def flipped(text):
    """One bit of one flag: "0" is "1" with its last bit changed."""
    first = text.index('"flags": "') + len('"flags": "')
    return text[:first] + {"0": "1", "1": "0"}[text[first]] + text[first + 1 :]


DAMAGE = {
    "cut": lambda text: text[:60],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "a number": lambda text: "3",
    "null": lambda text: "null",
    "another dict": lambda text: '{"accuracy": 0.5}',
    "too few flags": changed(flags="01"),
    "foreign flags": changed(flags="x" * 120),
    "too few counts": changed(forward=[1.0]),
    "no counts": without("backward"),
    "counts that are none": changed(vanished=["a"] * 120),
    "no weights": without("weights_sha256"),
    "of another attack": lambda text: sealed(json.loads(text.replace('"steps": 4', '"steps": 5'))),
    "one flag": flipped,
    "one cost": lambda text: text.replace("1.0", "3.0", 1),
    "no checksum": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"}),
    "other weights": changed(weights_sha256=["0" * 64]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_file_is_written_anew(store, attacked, damage):
    expected = evaluated(pgd())
    ((file, good),) = contents(store)
    file.write_text(DAMAGE[damage](file.read_text()))
    attacked.clear()
    assert not is_evaluated(pgd())
    anew = evaluated(pgd())
    assert len(attacked) == 1 and is_evaluated(pgd())
    assert anew.flags.tolist() == expected.flags.tolist() and anew.passes.tolist() == expected.passes.tolist()
    timeless = {"seconds": 0, "sha256": 0}
    assert json.loads(file.read_text()) | timeless == good | timeless


def test_other_weights_of_either_network_make_its_evaluations_anew(store, attacked):
    def negate(experiment):
        """Other weights, with a checksum that is right."""
        network = trained(experiment)
        with torch.no_grad():
            network.head.weight.neg_()
        checkpoints._keep(experiment, network, data_sha256=checkpoints.description(experiment)["data_sha256"])

    before, own = evaluated(TRANSFER), evaluated(pgd())
    negate(SOURCE)
    assert not is_evaluated(TRANSFER) and is_evaluated(pgd())
    attacked.clear()
    after = evaluated(TRANSFER)
    assert own.flags.tolist() == evaluated(pgd()).flags.tolist()
    assert [(attack, transferred) for attack, transferred, _ in attacked] == [(TRANSFER.attack, True)]
    assert after.flags.tolist() != before.flags.tolist() and is_evaluated(TRANSFER)
    negate(MAIN)
    assert not any(is_evaluated(attack) for attack in (None, TRANSFER, pgd()))


def test_a_transfer_is_kept_apart_from_its_attack_and_from_those_of_other_sources(store):
    attack = TRANSFER.attack
    own, source, _, itself = (
        evaluated(one) for one in (attack, *(Transfer(attack, e) for e in (SOURCE, DRAWING, MAIN)))
    )
    assert len(contents(store)) == 4
    assert itself.flags.tolist() == own.flags.tolist()  # made on itself it is the white-box attack
    assert source.flags.sum() > own.flags.sum()


def test_a_file_says_which_attack_it_is_of(store):
    one = pgd(rule={"name": "triangle", "gamma": 0.5})
    evaluated(one)
    ((_, content),) = contents(store)
    assert Attack(**content["attack"]) == one and content["attack"] == asdict(one)
    assert (content["samples"], content["split"], len(content["flags"])) == (120, "test", 120)
    assert set(content["flags"]) == {"0", "1", "?"}  # the last of those that were wrong from the start


# Whether all is there ----------------------------------------------------------------------------------------------


def test_is_evaluated_says_whether_anything_would_be_computed(store, passes):
    some = [
        None,
        MEMBERS[2],
        Ensemble("some", MEMBERS[1:4]),
        MEMBERS[3],
        Ensemble("others", MEMBERS[3:1:-1]),
        MEMBERS[8],
    ]
    answers = set()
    for one in (*some, Ensemble("all", MEMBERS), Ensemble("back", MEMBERS[::-1]), *MEMBERS):
        passes.clear()
        answer = is_evaluated(one)
        assert not passes  # asking computes nothing
        evaluated(one)
        assert answer == (not passes) and is_evaluated(one)
        answers.add(answer)
    assert answers == {True, False}


def test_nothing_is_evaluated_before_it_is_trained(store):
    ensemble = Ensemble("both", [pgd(), TRANSFER])
    evaluated(ensemble)
    for experiment in (MAIN, SOURCE):
        shutil.move(store / experiment.key / "checkpoint.json", store / "aside.json")
        assert is_evaluated(ensemble) is is_evaluated(TRANSFER) is False
        assert is_evaluated(pgd()) is (experiment is SOURCE)
        shutil.move(store / "aside.json", store / experiment.key / "checkpoint.json")
    assert is_evaluated(ensemble)
    shutil.rmtree(store)
    assert not any(is_evaluated(attack) for attack in (None, pgd(), TRANSFER, ensemble))


def test_an_interrupted_ensemble_goes_on_where_it_was(store, attacked, monkeypatch):
    ensemble = Ensemble("worst", MEMBERS)
    expected = evaluated(ensemble)
    wanted_of = [sum(wanted) for *_, wanted in attacked]
    monkeypatch.setattr(evaluation, "CHUNK", 30)
    real, half_done = evaluation.attacked, set()
    for stop in (2, 5, 9):
        forget(store)
        parts = itertools.count()

        def interrupted(*args, parts=parts, stop=stop, **options):
            for outcome in real(*args, **options):
                yield outcome
                if next(parts) == 2 * stop:
                    raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(evaluation, "attacked", interrupted)
            with pytest.raises(KeyboardInterrupt):
                evaluated(ensemble)
        assert not is_evaluated(ensemble)
        attacked.clear()
        whole = evaluated(ensemble)
        assert 0 < len(attacked) < len(MEMBERS)
        first, *others = (sum(wanted) for *_, wanted in attacked)
        assert others == wanted_of[len(MEMBERS) - len(others) :]
        half_done.add(first < wanted_of[-len(attacked)])
        assert whole.flags.tolist() == expected.flags.tolist() and whole.passes.tolist() == expected.passes.tolist()
    assert True in half_done  # what it had of the member at which it stopped was kept


# In parts ----------------------------------------------------------------------------------------------------------


def timeless(store):
    """All evaluations on disk, by their file, without what depends on time."""
    found = {path: json.loads(path.read_text()) for path in store.glob("*/evaluations/*.json")}
    return {path: {k: v for k, v in one.items() if k not in ("seconds", "sha256")} for path, one in found.items()}


WHOLE = [
    (MAIN, None),
    (MAIN, Ensemble("worst", MEMBERS)),
    (MAIN, MEMBERS[5]),  # coupled by its rule
    (MAIN, Beginning("pgd", EPS, {"alpha": EPS / 6, "steps": 2, "until_broken": True}, run_to=6)),
    (DRAWING, Ensemble("worst", [standard("fgsm", EPS), pgd(eot=2)])),
]


@pytest.mark.parametrize("size", [100, 200, 70])
def test_parts_in_any_order_leave_the_files_and_passes_of_a_whole_run(store, size):
    whole = [evaluated(attack, experiment, samples=SAMPLES) for experiment, attack in WHOLE]
    expected = timeless(store)
    forget(store)
    parts = [range(i, min(i + size, SAMPLES)) for i in range(0, SAMPLES, size)]
    jobs = [(one, attack, part) for one, attack in WHOLE[1:] for part in parts]
    for experiment in (MAIN, DRAWING):
        evaluations.evaluate_part(experiment, None, range(SAMPLES), samples=SAMPLES, split="test", device="cpu")
    for i in np.random.default_rng(size).permutation(len(jobs)):
        evaluations.evaluate_part(*jobs[i], samples=SAMPLES, split="test", device="cpu")
    assert timeless(store) == expected
    for one, (experiment, attack) in zip(whole, WHOLE, strict=True):
        assert evaluations.is_evaluated(experiment, attack, samples=SAMPLES, split="test")
        again = evaluated(attack, experiment, samples=SAMPLES)
        assert (again.flags.tolist(), again.passes.tolist()) == (one.flags.tolist(), one.passes.tolist())
        assert (again.vanished, again.strayed) == (one.vanished, one.strayed)


def test_a_part_attacks_its_own_samples_alone(store, attacked):
    clean = evaluated(None).flags
    for part in (range(30, 70), range(0, 30), range(70, 120)):
        attacked.clear()
        evaluations.evaluate_part(MAIN, pgd(), part, samples=120, split="test", device="cpu")
        ((_, _, wanted),) = attacked
        assert np.flatnonzero(wanted).tolist() == [i for i in part if clean[i]]
        assert is_evaluated(pgd()) == (part.stop == 120)


def test_what_others_add_to_a_file_meanwhile_stays(store, monkeypatch):
    """Another process computes the second half, and writes it while this one computes the first."""
    expected, real = evaluated(pgd()), evaluation.attacked
    others = [range(60, 120)]
    forget(store)
    evaluated(None)

    def slow(*arguments, **options):
        outcomes = list(real(*arguments, **options))
        if others:
            evaluations.evaluate_part(MAIN, pgd(), others.pop(), samples=120, split="test", device="cpu")
        return iter(outcomes)

    monkeypatch.setattr(evaluation, "attacked", slow)
    evaluations.evaluate_part(MAIN, pgd(), range(60), samples=120, split="test", device="cpu")
    monkeypatch.setattr(evaluation, "attacked", lambda *_, **__: pytest.fail("it was attacked again"))
    assert evaluated(pgd()).flags.tolist() == expected.flags.tolist()


# AutoAttack as the oracle ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps_255", [6, 12])
def test_the_worst_case_leaves_no_more_than_autoattack_does(store, larger, eps_255):
    ours = evaluated(protocols.strongest(eps_255, steps=10, long_steps=20, queries=300))
    network = trained(MAIN)
    x, y = larger.test.take(120).pixels(), larger.test.take(120).labels
    # AutoAttack's four, but for APGD's targeted loss, which needs a fourth class
    eps = eps_255 / 255
    four = [
        torchattacks.APGD(network, eps=eps, steps=50, loss="ce"),
        torchattacks.APGD(network, eps=eps, steps=50, loss="dlr"),
        torchattacks.FAB(network, eps=eps, steps=50, n_classes=3),
        torchattacks.Square(network, eps=eps, n_queries=1000),
    ]
    theirs = torchattacks.MultiAttack(four)(x, y)
    assert (theirs - x).abs().max() <= eps + 1e-6
    stand = (in_batches(network, theirs, None).argmax(1) == y).numpy()
    assert 0 < ours.flags.sum() < 120
    difference = statistics.paired_difference(ours.flags, stand)
    assert difference.low <= 0, (ours.flags.mean(), stand.mean())
