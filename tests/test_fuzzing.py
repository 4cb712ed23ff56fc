"""Input of any kind: it is used, or refused in one sentence; and nothing in a file is ever executed.

A long search: nice python -m pytest tests/test_fuzzing.py --hypothesis-profile=search
"""

import io
import json
import math
import os
import pickle
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from paperlib import __main__, attacks, files, paths, profiles, records, stamps
from paperlib.attacks.attack import ATTACKS, Attack
from paperlib.data import datasets, events, images, real, recordings
from paperlib.errors import Refused
from paperlib.profiles import parameters, reading
from paperlib.runs import twins
from paperlib.store import checkpoints, released
from paperlib.store import evaluations as evaluations_
from paperlib.store.experiment import Experiment
from paperlib.training import loop

SLOW = {"suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}


def examples(count: int) -> settings:
    """So many examples, and ten times as many in a search."""
    return settings(max_examples=count * settings.default.max_examples // 100, deadline=None, **SLOW)


SMOKE = reading.content_of("smoke")
SCHEDULE = loop.Schedule(epochs=1, batch_size=10, lr=0.1, momentum=0.9, weight_decay=0)
CAPS = {"train": 20, "validation": 10, "test": 10}
EXPERIMENT = Experiment(
    data={"name": "mnist5k"} | CAPS,
    network="conv-2-2",
    T=1,
    tau=1.0,
    rule="triangle",
    precision="float32",
    defense="at+sr",
    options={"lam": 0.01, "eps": 0.1, "alpha": 0.1, "steps": 1},
    schedule=SCHEDULE,
    seed=0,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "../..", "~x"])
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
names = st.text(max_size=20) | st.sampled_from(["../up", "/etc", "a b", "$(touch hacked)", ";touch hacked", "%", "\0"])


def refused(function, *given, **options):
    """What the function returns, or the sentence with which it refuses; anything else is raised."""
    try:
        return function(*given, **options)
    except Refused as problem:
        assert str(problem) and "Traceback" not in str(problem)
        return str(problem)


def change(data: bytes, draw) -> bytes:
    """`data` with a few bytes replaced, a stretch removed, doubled, or put in."""
    for _ in range(draw(st.integers(1, 3))):
        first, last = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        put = draw(st.binary(max_size=6) | st.just(data[first:last] * 2) | st.just(b""))
        data = data[:first] + put + data[last if draw(st.booleans()) else first :]
    return data


# ---- experiments and parameters --------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(EXPERIMENT.__dataclass_fields__)), anything)
@examples(60)
def test_an_experiment_of_any_values_is_made_or_refused(field, value):
    made = refused(replace, EXPERIMENT, **{field: value})
    if isinstance(made, Experiment):
        assert len(made.key) == 16 and made.folder.parent == paths.CHECKPOINTS


@given(st.sampled_from([*EXPERIMENT.options, "h", "preset", "confidence"]), anything)
@examples(40)
def test_a_training_takes_options_of_any_values_or_refuses_them(option, value):
    refused(replace, EXPERIMENT, options=EXPERIMENT.options | {option: value})


@given(st.sampled_from(sorted(SCHEDULE.__dataclass_fields__)), anything)
@examples(60)
def test_a_schedule_of_any_values_is_made_or_refused(field, value):
    refused(replace, SCHEDULE, **{field: value})


@given(st.data())
@examples(60)
def test_an_attack_of_any_values_is_made_or_refused(data):
    name = data.draw(st.sampled_from(sorted(ATTACKS)))
    takes = st.sampled_from(sorted(ATTACKS[name].takes) or ["nothing"])
    options = data.draw(st.dictionaries(takes | st.text(max_size=5), anything, max_size=2))
    rule = data.draw(st.just({}) | st.dictionaries(st.sampled_from(["name", "gamma", "slope"]), anything, max_size=2))
    made = refused(Attack, name, data.draw(anything), options, rule)
    if isinstance(made, Attack):
        assert made.title and isinstance(refused(lambda: made.gradients + made.queries), (int, float, str))


LINES = ["samples: int = 3  # how many", "eps_255: list[float] = [4, 8]  # radii", 'others: dict = {"a": [1]}  # more']


@given(st.data())
@examples(80)
def test_a_parameters_cell_of_any_text_is_read_or_refused(tmp_path, data):
    cell = '# %% tags=["parameters"]\n' + "\n".join(LINES)
    text = data.draw(st.text() | st.just(change(cell.encode(), data.draw).decode(errors="replace")))
    (tmp_path / "tab-mine.py").write_text(text, encoding="utf-8", errors="replace")
    refused(parameters.declared, tmp_path / "tab-mine.py")
    refused(twins.parse, text)


@given(st.dictionaries(st.sampled_from(["samples", "eps_255", "others"]) | names, anything, max_size=3))
@examples(60)
def test_a_notebook_takes_parameters_of_any_values_or_refuses_them(values):
    declared = {
        line.split(":")[0]: parameters.Parameter(line.split(":")[0], line.split(": ")[1].split(" =")[0], 0, "help")
        for line in LINES
    }
    complete = {"samples": 3, "eps_255": [4.0], "others": {}} | values
    taken = refused(parameters.check, "tab-mine", declared, complete)
    if isinstance(taken, dict):
        assert type(taken["samples"]) is int and all(math.isfinite(eps) for eps in taken["eps_255"])


# ---- profiles --------------------------------------------------------------------------------------------------------


def profile_of(monkeypatch, folder, text: str):
    monkeypatch.setattr(paths, "PARAMS", folder)
    (folder / "mine.yml").write_text(text, encoding="utf-8", errors="replace", newline="")
    profiles.load.cache_clear()
    try:
        for read in (profiles.load, reading.arithmetic_of, profiles.family):
            refused(read, "mine")
        return refused(reading.parameters_of, "mine", "tab-whitebox")
    finally:
        profiles.load.cache_clear()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>%@`#'\"?,\n\t 01.~<=\\") | st.characters(), max_size=60))
@example("!!python/object/apply:os.system ['touch hacked']")
@example("a: !!python/name:os.system")
@example("&a [*a]")
@example("title: 2001-13-45")
@example("title: !!bool x")
@example("title: !!timestamp x")
@example("title: " + "9" * 5000)
@example("title: &a {b: *a}")
@example(BOMB + "title: *j\n")
@example(BOMB + "seeds: {a: *j}\n")
@examples(80)
def test_a_profile_of_any_text_is_read_or_refused(monkeypatch, tmp_path, text):
    profile_of(monkeypatch, tmp_path, text)
    assert not Path("hacked").exists()


def test_a_profile_of_aliases_that_stand_for_endless_values_is_refused_and_others_are_not(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PARAMS", tmp_path)
    for text in (BOMB, "a: &a [*a]"):
        (tmp_path / "mine.yml").write_text(text)
        with pytest.raises(Refused, match="^params/mine.yml stands for more than 100,000 values; are there aliases"):
            reading.read(tmp_path / "mine.yml")
    (tmp_path / "mine.yml").write_text("a: &a {lam: 1}\nb: *a\n")
    assert reading.read(tmp_path / "mine.yml") == {"a": {"lam": 1}, "b": {"lam": 1}}


@st.composite
def changed_profiles(draw):
    """The profile "smoke" with an entry at any depth replaced, removed or added."""
    content = json.loads(json.dumps(SMOKE))
    part = content
    while True:
        key = draw(st.sampled_from(sorted(part)))
        if not isinstance(part[key], dict) or not part[key] or draw(st.booleans()):
            break
        part = part[key]
    if draw(st.integers(0, 4)) == 0:
        del part[key]
    else:
        part[draw(st.just(key) | st.text(min_size=1, max_size=5))] = draw(anything)
    return content


@given(changed_profiles())
@examples(60)
def test_a_profile_with_any_value_changed_is_read_or_refused(monkeypatch, tmp_path, content):
    profile_of(monkeypatch, tmp_path, yaml.safe_dump(content, allow_unicode=True))


# ---- folders of images, files of events ------------------------------------------------------------------------------

PNG = io.BytesIO()
Image.new("RGB", (4, 4), (1, 2, 3)).save(PNG, "png")


@given(st.data())
@examples(40)
def test_a_folder_of_any_files_is_read_or_refused(data):
    file_names = st.from_regex(r"\A[a-c]{1,2}(\.png|\.JPG|\.webp|\.txt)\Z") | st.sampled_from(
        [".png", ".a.png", "ä .bmp"]
    )
    contents = st.just(PNG.getvalue()) | st.binary(max_size=40) | st.builds(lambda: change(PNG.getvalue(), data.draw))
    with tempfile.TemporaryDirectory() as folder:
        for part in data.draw(st.sampled_from([[""], ["train", "test"], ["train"]])):
            for name in data.draw(st.lists(st.sampled_from(["a", "b", ".c", "d e", "ü"]), max_size=3)):
                (inner := Path(folder) / part / name).mkdir(parents=True, exist_ok=True)
                written = data.draw(st.dictionaries(file_names, contents, max_size=7))
                for file, content in written.items():
                    (inner / file).write_bytes(content)
        images._load.cache_clear()
        refused(datasets.load, f"folder:{folder}")


@given(
    names | st.integers(),
    st.dictionaries(st.sampled_from(["train", "test", "T", "blur"]) | names, anything, max_size=2),
)
@example("folder:\0", {})
@example("folder:" + "x" * 5000, {})
@example("saccades:folder:\0", {"T": 2})
@example("mnist5k", {"test": [3]})
@examples(60)
def test_a_data_set_of_any_name_and_arguments_is_refused(name, arguments):
    refused(datasets.load, name, **{**arguments, "nothing": 1})  # never read: `nothing` is no argument
    refused(datasets.refuse_unknown, name)
    if "T" not in arguments:
        refused(datasets.load, name, **arguments)


RECORDING = bytes(byte for i in range(12) for byte in (i, i, (i % 2) << 7, 0, i))


@given(st.data())
@examples(40)
def test_recordings_of_any_bytes_are_read_or_refused(monkeypatch, data):
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patch:
        patch.setattr(paths, "DATA", Path(folder) / "frames")
        patch.setenv(real.FOLDER, folder)
        for part in ("Train", "Test"):
            for label in data.draw(st.sampled_from([["0", "1"], ["0", "12"], ["x"]])):
                (inner := Path(folder) / "NMNIST" / part / label).mkdir(parents=True)
                for number in range(5):
                    content = RECORDING if data.draw(st.booleans()) else change(RECORDING, data.draw)
                    (inner / f"{number}.bin").write_bytes(content)
        events._real.cache_clear()
        made = refused(datasets.load, "nmnist", T=2)
        if not isinstance(made, str):
            assert made.train.images.sum() > 0


# ---- files of the store ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A store with one finished training of `EXPERIMENT`, and an evaluation under one attack."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "CHECKPOINTS", folder)
        evaluations_.evaluated([EXPERIMENT], [attacks.standard("fgsm", 0.1)], samples=5, device="cpu", progress=False)
    return folder


def deep(text: bytes) -> bytes:
    return b"[" * 100_000 + text


@given(st.data())
@examples(60)
def test_checkpoints_and_evaluations_of_any_bytes_are_read_or_refused(kept, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "CHECKPOINTS", kept)
        broken = [*(kept.glob("*/*.json")), *kept.glob("*/weights.pt"), *kept.glob("*/evaluations/*.json")]
        file = data.draw(st.sampled_from(sorted(broken)))
        whole = file.read_bytes()
        changes = st.builds(lambda: change(whole, data.draw))
        changed = data.draw(st.binary(max_size=30) | changes | st.just(deep(whole)))
        try:
            file.write_bytes(changed)
            refused(checkpoints.in_folder, EXPERIMENT.key)
            refused(checkpoints._load, EXPERIMENT, "cpu")
            refused(lambda: list(evaluations_.stored(EXPERIMENT, split="test")))
            refused(evaluations_.is_evaluated, EXPERIMENT, attacks.standard("fgsm", 0.1), samples=5, split="test")
        finally:
            file.write_bytes(whole)


STATE = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}


@given(st.data())
@examples(60)
def test_released_files_states_frames_and_records_of_any_bytes_are_read_or_refused(tmp_path, data):
    reader = data.draw(st.sampled_from(["released", "state", "frames", "record", "stamp"]))
    buffer, file = io.BytesIO(), tmp_path / reader
    np.savez(buffer, a=np.zeros(3)) if reader == "frames" else torch.save(STATE, buffer)
    whole = buffer.getvalue() if reader in ("released", "state", "frames") else b'{"artifact": "a", "schema": 3}'
    changed = data.draw(st.builds(lambda: change(whole, data.draw)) | st.binary(max_size=40) | st.just(deep(whole)))
    if reader == "state":  # with a right digest, as a file of another program may have
        changed = data.draw(st.sampled_from([changed, bytes.fromhex(files.sha256(changed)) + changed]))
    file.write_bytes(changed)
    if reader == "released":
        refused(released._read, file)
    elif reader == "state":
        step = loop.Step(nn.Linear(3, 2), lambda network, batch: 0, SCHEDULE)
        refused(loop._resume, step, file, "cpu")
    elif reader == "frames":
        recordings.arrays(file, lambda: {"a": np.ones(3)})
    elif reader == "record":
        refused(records.load, file)
    else:
        stamps._fault(file)


class Trap:
    """A pickle that executes a command where it is read by a reader that executes pickles."""

    def __init__(self, canary: Path):
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


@given(st.sampled_from(["bare", "entry", "list", "key"]), st.integers(0, 5))
@examples(12)
def test_no_reader_executes_a_pickle(kept, tmp_path, place, protocol):
    canary, file = tmp_path / "canary", tmp_path / "trap"
    trap = Trap(canary)
    content = {"bare": trap, "entry": {"fc.weight": trap}, "list": [STATE, trap], "key": {("a", trap): 1}}[place]
    buffer = io.BytesIO()
    torch.save(content, buffer)
    for data in (buffer.getvalue(), pickle.dumps(content, protocol)):
        file.write_bytes(data)
        assert isinstance(refused(released._read, file), str)
        file.write_bytes(bytes.fromhex(files.sha256(data)) + data)
        assert loop._resume(loop.Step(nn.Linear(3, 2), lambda network, batch: 0, SCHEDULE), file, "cpu") == ([], None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "CHECKPOINTS", kept)
            weights, described = EXPERIMENT.folder / "weights.pt", EXPERIMENT.folder / "checkpoint.json"
            before = weights.read_bytes(), described.read_text()
            try:  # the checksum fits: whoever can write one file can write both
                weights.write_bytes(data)
                described.write_text(json.dumps(json.loads(before[1]) | {"weights_sha256": files.sha256(data)}))
                assert "nothing in it was executed" in refused(checkpoints._load, EXPERIMENT, "cpu")
            finally:
                weights.write_bytes(before[0])
                described.write_text(before[1])
    np.savez(buffer := io.BytesIO(), frames=np.array([trap], dtype=object))
    file.write_bytes(buffer.getvalue())
    assert recordings.arrays(file, lambda: {"frames": np.ones(2)})["frames"].tolist() == [1, 1]
    assert not canary.exists()
    pickle.loads(pickle.dumps(trap, protocol))  # the trap works
    assert canary.exists()
    canary.rmdir()


# ---- names -----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(["plan", "run", "draw", "report", "verify", "publish"]), names)
@examples(40)
def test_a_command_takes_no_name_that_climbs_or_that_a_shell_would_execute(monkeypatch, tmp_path, command, name):
    monkeypatch.chdir(tmp_path)
    of_profile = command in ("plan", "report", "verify")
    monkeypatch.setattr(sys, "argv", ["paperlib", command, *([f"--profile={name}"] if of_profile else ["--", name])])
    assert __main__.main() == 2
    assert not list(tmp_path.iterdir())


@given(names | st.sampled_from(["a/b/c", "a/..", "a/b;touch hacked", "a/$(b)", "a/b\n", "../b"]))
@examples(40)
def test_an_address_of_no_repository_is_refused(name):
    assume(not re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._-]+", name) or name.endswith(".."))
    with pytest.raises(Refused, match="it must be owner/name"):
        twins.links(name)


# ---- tensors ---------------------------------------------------------------------------------------------------------

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
)


@st.composite
def batches(draw):
    """Images and labels of any type, shape and values, with bounds and a radius."""
    shape = draw(
        st.sampled_from([(2, 1, 4, 4), (1, 1, 4, 4), (3, 2, 5, 5), (2, 3, 2, 4, 4), (2, 16), (2,), (0, 1, 4, 4), ()])
    )
    dtype = draw(st.sampled_from(DTYPES) | st.just(torch.float32))
    low, high = draw(
        st.sampled_from([(0.0, 1.0), (0, 1), (0.0, 5.0), (-1.0, 1.0), (1, 0), (0, math.nan), (-math.inf, math.inf)])
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.rand(shape, generator=generator)
    if math.isfinite(low) and math.isfinite(high):
        x = low + (high - low) * x
    fill = draw(st.sampled_from([None] * 6 + [math.nan, math.inf, -0.5, 0.0, 1e-45]))
    if fill is not None and x.numel():
        x.view(-1)[0] = fill
    layout = draw(st.sampled_from(["plain"] * 4 + ["strided", "expanded", "graph", "sparse", "meta"]))
    x = x.to(dtype)
    if layout == "strided" and x.dim() > 2:
        x = x.transpose(-1, -2)
    if layout == "expanded" and x.dim() > 1 and len(x):
        x = x[:1].expand_as(x)
    if layout == "graph" and x.is_floating_point():
        x = x.requires_grad_() * 1
    if layout == "sparse" and x.dim():
        x = x.to_sparse()
    if layout == "meta":
        x = x.to("meta")
    labels = (
        draw(st.lists(st.integers(-1, 4), min_size=0, max_size=3)) if draw(st.booleans()) else [0] * (shape or (1,))[0]
    )
    label_type = draw(
        st.sampled_from([torch.int64] * 4 + [torch.int32, torch.uint8, torch.float32, torch.bool, torch.complex64])
    )
    eps = draw(st.sampled_from([0, 0.1, 1, 1e-8, 1e30, 2, 3.0, -1, math.nan, True]))
    return x, torch.tensor(labels).to(label_type), (low, high), eps


@given(st.sampled_from(sorted(ATTACKS)), batches(), st.sampled_from([0.0, 1.0, math.inf]))
@example("random_retiming", (torch.full((2, 16), 0.5), torch.tensor([0, 0]), (0.0, 1.0), 0), 1.0)
@example("retiming", (torch.full((2, 16), 0.5), torch.tensor([0, 0]), (0.0, 1.0), 0), 1.0)
@examples(150)
def test_an_attack_on_any_tensors_stays_in_its_ball_or_is_refused(name, batch, scale):
    x, labels, bounds, eps = batch
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with torch.no_grad():
        if x.dim() > 1 and len(x) and not x.is_complex() and not x.is_sparse and not x.is_meta:
            network(x.float() if x.is_floating_point() else x.float())
            network.to(x.dtype if x.is_floating_point() else torch.float32)
            network[1].weight.mul_(scale)
    takes = ATTACKS[name].takes
    options = {option: value for option, value in {"steps": 2, "queries": 3, "alpha": 0.1}.items() if option in takes}
    found = refused(ATTACKS[name].function, network, x, labels, eps=eps, bounds=bounds, **options)
    if isinstance(found, str):
        return
    assert found.shape == x.shape and not found.requires_grad and found.isfinite().all()
    assert (found >= bounds[0]).all() and (found <= bounds[1]).all()
    if ATTACKS[name].norm == "linf":
        distance = (found.double() - x.detach().double()).abs().max()
        assert distance <= eps + 4 * torch.finfo(x.dtype).eps * max(1.0, x.detach().abs().max().item())
