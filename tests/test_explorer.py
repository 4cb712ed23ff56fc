"""The explorer: its engine against torch, its file, what it refuses, and the page in a browser."""

import base64
import json
import os
import re
import time

import browser
import numpy as np
import pytest
import torch
from conftest import scatter
from test_command_line import call, one_sentence  # noqa: F401  a fixture

from paperlib import arithmetic, attacks, networks, paths, profiles
from paperlib.data.sets import Split
from paperlib.errors import Refused
from paperlib.explorer import agreement, content, export, page
from paperlib.networks.neurons import NormedLIF
from paperlib.store import checkpoints

COMMITTED = paths.FIGURES / "laptop" / "explorer.html"
TRAININGS = ("vanilla", "sr", "at", "at+sr")
TRIANGLE = {"name": "triangle", "gamma": 1.0}
RULES = (
    *({"name": "triangle", "gamma": gamma} for gamma in (0.3, 1.0)),
    *({"name": "sigmoid", "slope": slope} for slope in (4.0, 1.5)),
    *({"name": "atan", "gamma": gamma} for gamma in (2.0, 0.5)),
    *({"name": "rectangle", "gamma": gamma} for gamma in (1.0, 2.5)),
    *({"name": "exponential", "gamma": gamma} for gamma in (1.0, 0.2)),
    {"name": "straight-through"},
)
PGD = attacks.Attack("pgd", 32 / 255, {"steps": 10})
ATTACKS = (PGD, *(attacks.Attack(name, 16 / 255) for name in ("uniform", "sign", "fgsm")))
SAMPLES = 60
LOGITS, GRADIENTS = 1e-5, 1e-4  # largest differences: of logits, and of ∇f over its largest value
NEAR = 1e-5  # a membrane so near to θ may fall on either side of it, for sums in another order round in another way
TIED = 0.05  # of the samples may have such a membrane

with_node = pytest.mark.skipif(not agreement.is_measurable(), reason="Node is not installed")


# ---- the engine against torch ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Split:
    (experiment,) = profiles.load("laptop").experiments("vanilla", seeds=[0])
    return experiment.load_data().test.take(SAMPLES)


@pytest.fixture(scope="module")
def committed():
    """A function of a training: its network in the profile laptop, first seed, with its description."""
    kept, profile = {}, profiles.load("laptop")

    def of(training: str):
        if training not in kept:
            experiment = profile.experiments(training)[0]
            folder = paths.RESULTS / "laptop" / "networks"
            checkpoints.copy_networks([experiment], folder, paths.CHECKPOINTS)
            network = checkpoints.trained(experiment, device="cpu")
            kept[training] = network, content.describe(network, experiment.load_data())
        return kept[training]

    return of


def nearest(network, images) -> np.ndarray:
    """The distance of each sample's nearest membrane to the threshold, (B,), by a loop over steps in 64 bits."""
    currents = []

    def current(layer, inputs):
        (x,) = inputs
        shape = (-1, 1, 1)
        normed = (x - layer.running_mean.view(shape)) / (layer.running_var.view(shape) + layer.eps).sqrt()
        currents.append(
            (normed * layer.weight.view(shape) + layer.bias.view(shape)).double().expand(network.T, *x.shape[1:])
        )

    layers = [module for module in network.modules() if isinstance(module, NormedLIF)]
    hooks = [layer.register_forward_pre_hook(current) for layer in layers]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    distance = torch.full((len(images),), torch.inf, dtype=torch.float64)
    for steps in currents:
        v = torch.zeros_like(steps[0])
        for step in steps:
            m = layers[0].neuron.tau * v + step
            distance = torch.minimum(distance, (m - 1).abs().flatten(1).amin(1))
            v = m * (m < 1)
    return distance.numpy()


def compare(network, description, samples, attack, rule, seed=0) -> dict[str, np.ndarray]:
    """The largest difference of each sample without a tie, engine against torch; ∇f over its largest value."""
    ours = agreement.engine(description, samples, attack, rule, seed)
    theirs = agreement.reference(network, samples, attack, rule, seed)
    other = (ours["spikes"] != theirs["spikes"]).any(1)
    assert (nearest(network, samples.pixels())[other] < NEAR).all(), "spikes differ far from the threshold"
    assert other.mean() <= TIED
    difference = {name: np.abs(ours[name] - theirs[name]).max(1)[~other] for name in ours}
    difference["gradient"] /= np.maximum(np.abs(theirs["gradient"]).max(1)[~other], 1e-30)
    return difference


@with_node
@pytest.mark.parametrize("training", TRAININGS)
def test_the_engine_computes_the_committed_networks_as_torch_does(committed, digits, training):
    difference = compare(*committed(training), digits, PGD, TRIANGLE)
    assert difference["logits"].max() < LOGITS
    assert difference["gradient"].max() < GRADIENTS
    # One sign of one gradient near 0 may turn at a tie on the way; almost all images are the same to the last bit.
    assert (difference["attacked"] == 0).mean() >= 1 - TIED


@with_node
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule.values())))
def test_every_backward_rule_gives_torch_s_gradient_and_pgd(committed, digits, rule):
    difference = compare(*committed("sr"), digits.take(20), attacks.Attack("pgd", 24 / 255, {"steps": 4}), rule, seed=3)
    assert difference["gradient"].max() < GRADIENTS
    assert (difference["attacked"] == 0).mean() >= 1 - TIED


@with_node
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
@pytest.mark.parametrize("seed", [0, 20])
def test_every_attack_is_that_of_the_library_from_the_same_draw(committed, digits, attack, seed):
    network, description = committed("vanilla")
    difference = compare(network, description, digits, attack, TRIANGLE, seed)["attacked"]
    assert (difference == 0).mean() >= 1 - TIED * (attack.name in ("fgsm", "pgd"))


@with_node
def test_without_an_attack_the_image_stays(committed, digits):
    assert (compare(*committed("at"), digits, None, TRIANGLE)["attacked"] == 0).all()


@with_node
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conv-3", {"image_size": 9}),
        ("conv-4-3-2", {"image_size": 13, "T": 6, "tau": 0.5}),  # odd maps, of which the pool drops a row
        (
            "conv-2-5",
            {"image_size": 8, "in_channels": 3, "num_classes": 4, "mean": (0.1, 0.2, 0.4), "std": (0.9, 0.5, 0.3)},
        ),
        ("conv-3-3", {"image_size": 8, "T": 1}),
        ("conv-3-3", {"image_size": 8, "T": 5, "tau": 0.9, "detach_reset": True}),
    ],
)
def test_the_engine_takes_other_layers_images_steps_and_leaks(name, options):
    options = {"in_channels": 1, "num_classes": 3, "T": 4} | options
    torch.manual_seed(1)
    network = networks.build(name, **options).eval()
    for module in network.modules():
        if isinstance(module, NormedLIF):
            scatter(module)
    size, channels, classes = (options[n] for n in ("image_size", "in_channels", "num_classes"))
    images = torch.randint(0, 256, (24, channels, size, size), dtype=torch.uint8)
    samples = Split(images, torch.arange(24) % classes, torch.arange(24) + 70_000)

    class Data:
        in_channels, image_size, num_classes = channels, size, classes

    for rule in (TRIANGLE, {"name": "atan", "gamma": 2.0}):
        difference = compare(network, content.describe(network, Data), samples, PGD, rule)
        assert difference["logits"].max() < LOGITS and difference["gradient"].max() < GRADIENTS
        assert (difference["attacked"] == 0).mean() >= 0.9  # of 24


@with_node
def test_a_membrane_exactly_at_the_threshold_spikes(tiny):
    network = networks.build("conv-2", in_channels=1, image_size=8, num_classes=3, T=4).eval()
    with torch.no_grad():
        network.stem.weight.zero_()
        network.stem.bias.fill_(0.5)  # m = 0.5, 1, 0.5, 1
        network.body[0].running_var.fill_(1 - network.body[0].eps)
    ours = agreement.engine(content.describe(network, tiny), tiny.test.take(1), None, TRIANGLE)["spikes"]
    assert ours.reshape(4, -1).tolist() == [[s] * 32 for s in (0, 1, 0, 1)]
    assert (ours == agreement.reference(network, tiny.test.take(1), None, TRIANGLE)["spikes"]).all()


@with_node
def test_ties_are_found(committed, digits):
    """What excuses a difference of spikes is small where a membrane is put on the threshold, and only there."""
    network, _ = committed("vanilla")
    images = digits.pixels()
    distance = nearest(network, images)
    assert (distance < NEAR).mean() < 0.5 and distance.max() > NEAR


def test_the_rules_of_the_page_are_those_of_the_library():
    source = (agreement.SCRIPT.parent / "engine.js").read_text()
    table = re.search(r"const RULES = \{\n(.*?)\n\};", source, re.S)[1]
    assert (
        tuple(re.findall(r'^  "?([\w-]+)"?: \(', table, re.M))
        == content.RULES
        == tuple(dict.fromkeys(r["name"] for r in RULES))
    )


# ---- the file ----------------------------------------------------------------------------------------------------


def held(html: str) -> dict:
    """The content of an explorer's file."""
    return json.loads(re.search(r'<script id="content" type="application/json">(.*?)</script>', html, re.S)[1])


@with_node
@pytest.mark.skipif(not arithmetic.is_exact(), reason="portable arithmetic is not exact here, so the bytes may differ")
def test_the_committed_file_is_what_the_export_gives(tmp_path):
    export("laptop", [], tmp_path / "again.html")
    same = (tmp_path / "again.html").read_bytes() == COMMITTED.read_bytes()
    assert same, "figures/laptop/explorer.html is stale; python -m paperlib export-explorer writes it"


def test_the_file_is_one_piece_and_small():
    html = COMMITTED.read_text(encoding="utf-8")
    assert len(html.encode()) < 500_000
    body = html.replace(re.search(r'<script id="content".*?</script>', html, re.S)[0], "")
    assert re.findall(r'(?:src|href)="(.*?)"', body) == ["https://arxiv.org/abs/2405.20355"]
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|@import|url\(", body)


def test_the_example_is_the_first_image_that_only_the_first_network_loses(committed):
    written = held(COMMITTED.read_text(encoding="utf-8"))
    start, flags = written["start"], []
    test = profiles.load("laptop").experiments("vanilla")[0].load_data().test.take(40)
    images, labels = test.pixels(), test.labels
    for training in TRAININGS:
        network, _ = committed(training)
        options = {"steps": start["steps"], "seed": start["seed"], "index": test.index}
        x = attacks.pgd(network, images, labels, eps=start["eps_255"] / 255, bounds=(0, 1), **options)
        flags.append((network(images).argmax(1) == labels, network(x).argmax(1) == labels))
    first = next(
        row for row in range(40) if all(clean[row] and kept[row] == (n > 0) for n, (clean, kept) in enumerate(flags))
    )
    image = written["images"][start["image"]]
    assert (image["index"], image["label"]) == (test.index[first], labels[first])
    assert base64.b64decode(image["pixels"]) == test.images[first].numpy().tobytes()
    assert [n["title"] for n in written["networks"]] == ["vanilla", "SR", "AT", "AT+SR"]
    assert f"makes vanilla misclassify this {labels[first]}, but not SR, AT and AT+SR." in written["story"]


def test_the_images_are_the_first_of_each_class_then_the_first_others():
    written = held(COMMITTED.read_text(encoding="utf-8"))
    test = profiles.load("laptop").experiments("vanilla")[0].load_data().test
    firsts = [int((test.labels == label).nonzero()[0]) for label in range(10)]
    assert [image["label"] for image in written["images"][:10]] == list(range(10))
    assert [image["index"] for image in written["images"][:10]] == test.index[firsts].tolist()
    assert len({image["index"] for image in written["images"]}) == content.IMAGES


def test_text_of_a_user_cannot_end_the_script():
    html = page.page({"story": "</script><script>alert(1)</script>"}).decode()
    assert held(html)["story"] == "</script><script>alert(1)</script>"
    assert html.count("</script>") == 4


# ---- networks of one's own, and what is refused ------------------------------------------------------------------


def test_a_network_of_one_s_own_is_exported_by_its_key(call, house, monkeypatch):  # noqa: F811
    profile = house.profile()
    own, other = profile.experiments("vanilla", seeds=[1], T=3, tau=0.5)[0], profile.experiments("sr")[0]
    for experiment in (own, other):
        checkpoints.trained(experiment, device="cpu", progress=False)
    monkeypatch.setattr(agreement, "is_measurable", lambda: False)
    assert call("export-explorer", own.key, "sr", "--profile", "tiny")[0] == 0
    written = held((paths.BUILD / "own" / "explorer.html").read_text(encoding="utf-8"))
    assert [(n["title"], n["T"], n["tau"], n["widths"]) for n in written["networks"]] == [
        ("vanilla", 3, 0.5, [2, 4]),
        ("SR", 2, 1.0, [2, 4]),
    ]
    assert "not compared" in written["agreement"] and len(written["images"]) == 12  # all there are
    assert call("export-explorer", own.key, "--profile", "tiny", "--out", str(house.root / "mine.html"))[0] == 0
    assert len(held((house.root / "mine.html").read_text(encoding="utf-8"))["networks"]) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network": "poisson-conv-2-4"}, "cannot run poisson-conv-2-4"),
        ({"network": "ann-conv-2-4", "T": 1}, "cannot run ann-conv-2-4"),
        ({"network": "vgg11"}, "cannot run vgg11"),
    ],
)
def test_a_network_that_the_engine_cannot_run_is_refused_before_it_is_loaded(house, changes, reason):
    (experiment,) = house.profile().experiments("vanilla", seeds=[0], **changes)
    with pytest.raises(Refused, match=reason) as refused:
        content.refuse(experiment)
    assert "it runs conv-A-B-... networks on images." in str(refused.value)


def test_a_network_in_16_bits_or_on_events_is_refused(house):
    profile = house.profile(
        network={"name": "conv-2-4", "T": 2, "tau": 1.0, "rule": "triangle", "precision": "bfloat16"}
    )
    with pytest.raises(Refused, match="in bfloat16; it runs conv-A-B-... networks on images, in float32."):
        content.refuse(profile.experiments("vanilla")[0])
    with pytest.raises(Refused, match="cannot run events-conv-2 of"):
        content.refuse(profile.on_events().experiments("vanilla")[0])


def test_what_is_not_there_is_refused_in_one_sentence(call, house):  # noqa: F811
    profile = house.profile()
    code, out, err = call("export-explorer", "nothing", "--profile", "tiny")
    assert (code, out) == (2, "") and one_sentence(err)
    assert err.startswith(
        "'nothing' is neither the key of a network under checkpoints nor a training of params/tiny.yml"
    )
    code, out, err = call("export-explorer", "--profile", "tiny")
    assert (code, out) == (2, "") and one_sentence(err) and "is not trained yet" in err
    own, other = profile.experiments("vanilla")[0], profile.experiments("vanilla")[0]
    object.__setattr__(other, "data", {"name": "others"})
    with pytest.raises(Refused, match="must see the same data"):
        content.refuse_mixture([own, other])
    assert not (paths.FIGURES / "tiny").exists()


# ---- the page in a browser ---------------------------------------------------------------------------------------

MOVES = {  # control → values to give it
    "attack": ["none", "uniform", "sign", "fgsm", "pgd"],
    "eps": [0, 64, 32],
    "steps": [1, 20, 10],
    "seed": [5, 0],
    "rule": [*content.RULES[1:], "triangle"],
    "width": [0.1, 6, 1],
    "layer": [2, 1],
    "channel": [3],
    "row": [14],
    "column": [10],
}
MOVE = """
const [id, value] = arguments, control = document.getElementById(id);
control.value = value;
const began = performance.now();
control.dispatchEvent(new Event(control.type === "range" ? "input" : "change"));
return performance.now() - began;
"""
MILLISECONDS, TRIES = 300, 8  # that a move may take, in the best of so many tries


def allowed() -> float:
    """The milliseconds of a move: longer on a machine with more work than cores, where each process waits its turn."""
    return MILLISECONDS * max(1, os.getloadavg()[0] / os.cpu_count())


@pytest.fixture(scope="module", params=[(1280, False), (390, True)], ids=["1280-light", "390-dark"])
def opened(request):
    if browser.missing():
        pytest.skip(browser.missing())
    width, dark = request.param
    with browser.chromium(width, dark=dark) as driver:
        driver.get(COMMITTED.as_uri())
        yield driver


@pytest.fixture
def driver(opened):
    """The page as it opens."""
    opened.execute_script("document.querySelector('#retell button').click()")
    yield opened
    assert browser.console_errors(opened) == []


def text(driver, selector: str) -> str:
    return driver.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def pictures(driver) -> dict[str, str]:
    """What the page shows: each picture as a data URL, the membrane, the classes and the verdict."""
    script = """
    const shown = {};
    const canvases = document.querySelectorAll("figure canvas, #layers canvas");
    canvases.forEach((canvas, n) => (shown[canvas.id || `layer ${n}`] = canvas.toDataURL()));
    for (const id of ["membrane", "classes", "verdict"]) shown[id] = document.getElementById(id).innerHTML;
    return shown;
    """
    return driver.execute_script(script)


def test_the_page_opens_with_its_story(driver):
    label = re.search(r"misclassify this (\d)", text(driver, "#story"))[1]
    assert re.match(
        rf"vanilla answers [^{label}] .*without the attack {label} .* It loses the {label}\.", text(driver, "#verdict")
    )
    driver.execute_script("document.querySelectorAll('#retell button')[1].click()")
    assert re.match(rf"SR answers {label} .*It keeps the {label}\.", text(driver, "#verdict"))
    deadline = time.monotonic() + 20
    while "…" in text(driver, "#trainings") and time.monotonic() < deadline:
        time.sleep(0.1)
    marks = re.findall(r"[✓✗]", text(driver, "#trainings"))
    assert marks == ["✗", "✓", "✓", "✓"]


def test_the_page_shows_what_torch_computes(driver, committed, digits):
    network, _ = committed("vanilla")
    written = held(COMMITTED.read_text(encoding="utf-8"))
    start, image = written["start"], written["images"][written["start"]["image"]]
    row = digits.index.tolist().index(image["index"])
    x, y = digits.pixels()[row : row + 1], digits.labels[row : row + 1]
    options = {"steps": start["steps"], "seed": 0, "index": digits.index[row : row + 1]}
    attacked = attacks.pgd(network, x, y, eps=start["eps_255"] / 255, bounds=(0, 1), **options)
    shares = [f"{100 * p:.1f} %" for p in network(attacked).double().softmax(1)[0].tolist()]
    script = "return [...document.querySelectorAll('#classes li')].map((item) => item.lastChild.textContent)"
    assert driver.execute_script(script) == shares
    shown = driver.execute_script("return Array.from(shown.attackedImage)")
    assert np.abs(np.array(shown) - attacked.flatten().numpy()).max() < 1e-6


@pytest.mark.parametrize("control", MOVES)
def test_every_control_moves_the_page_quickly_and_without_an_error(driver, control):
    before, changed = pictures(driver), False
    for value in MOVES[control]:
        tries = (driver.execute_script(MOVE, control, value) for _ in range(TRIES))
        assert any(took < allowed() for took in tries), f"{control} = {value}: slower each time"
        changed |= pictures(driver) != before
        assert browser.scrolls_sideways(driver) == 0
    assert changed


def test_what_each_control_changes(driver):
    """A rule changes the gradient and PGD, never the answer to the same image; noise does not know the rule."""
    clean = pictures(driver)
    for value in ("none", "uniform"):
        driver.execute_script(MOVE, "attack", value)
        driver.execute_script(MOVE, "rule", "triangle")
        before = pictures(driver)
        driver.execute_script(MOVE, "rule", "sigmoid")
        after = pictures(driver)
        assert after["gradient"] != before["gradient"] and after["membrane"] != before["membrane"]
        same = ("image", "attacked", "perturbation", "classes", "verdict")
        assert [after[name] for name in same] == [before[name] for name in same]
    driver.execute_script(MOVE, "attack", "pgd")
    assert pictures(driver)["attacked"] != clean["attacked"]
    driver.execute_script(MOVE, "eps", 0)
    still = pictures(driver)
    assert still["attacked"] == still["image"]


def test_images_trainings_and_neurons_can_be_chosen(driver):
    for group, count in (("image", content.IMAGES), ("training", 4)):
        seen = set()
        for n in range(count):
            driver.execute_script(f"document.querySelectorAll('[name={group}]')[{n}].click()")
            seen.add(pictures(driver)["attacked"] + text(driver, "#verdict"))
        assert len(seen) == count
    from selenium.webdriver import ActionChains

    canvas = driver.find_element("css selector", "#layers canvas")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    ActionChains(driver).move_to_element_with_offset(canvas, 12, 12).click().perform()  # its middle is between squares
    assert driver.execute_script("return state.neuron.layer") == 0
    driver.execute_script("document.getElementById('changed').click()")
    assert driver.execute_script("return state.neuron") is None


def test_one_can_draw_with_the_pointer_and_with_the_keyboard(driver):
    from selenium.webdriver import ActionChains, Keys

    driver.execute_script("document.getElementById('empty').click()")
    empty = pictures(driver)["image"]
    pad = driver.find_element("id", "image")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", pad)
    ActionChains(driver).move_to_element(pad).click_and_hold().move_by_offset(0, 30).release().perform()
    drawn = pictures(driver)["image"]
    assert drawn != empty and "your drawing" in text(driver, "#image-text")
    pad.send_keys(Keys.ARROW_RIGHT * 5 + Keys.SPACE)
    assert pictures(driver)["image"] not in (drawn, empty)


def test_all_controls_can_be_reached_with_the_keyboard(driver):
    from selenium.webdriver import Keys

    driver.execute_script("document.activeElement.blur()")
    reached = set()
    for _ in range(40):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(driver.execute_script("return document.activeElement.id || document.activeElement.name"))
    assert reached >= {*MOVES, "training", "image", "empty", "changed"}


def test_the_page_has_no_serious_barrier(driver):
    assert browser.axe(driver) == []


def test_the_page_of_another_network_opens_too(house, monkeypatch):
    if browser.missing():
        pytest.skip(browser.missing())
    monkeypatch.setattr(agreement, "is_measurable", lambda: False)
    profile = house.profile()
    keys = []
    for changes in ({"T": 3}, {"network": "conv-3", "tau": 0.5}):  # of other layers, so the rasters are laid out anew
        (experiment,) = profile.experiments("vanilla", seeds=[0], **changes)
        checkpoints.trained(experiment, device="cpu", progress=False)
        keys.append(experiment.key)
    export("tiny", keys, house.root / "own.html")
    with browser.chromium(390) as driver:
        driver.get((house.root / "own.html").as_uri())
        for n, layers in ((1, 1), (0, 2)):
            driver.execute_script(f"document.querySelectorAll('[name=training]')[{n}].click()")
            assert driver.execute_script("return document.querySelectorAll('#layers canvas').length") == layers
        assert "not compared" in text(driver, "#agreement")
        assert browser.console_errors(driver) == [] and browser.scrolls_sideways(driver) == 0
