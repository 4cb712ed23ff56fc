"""My run against the committed one: counts by hand, chance by simulation, gaps in one line; the certificate."""

import hashlib
import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from handmade import made, record, row
from house import commit, git

from paperlib import __main__ as command_line
from paperlib import arithmetic, artifacts, labels, paths, records
from paperlib.artifacts import comparison, report
from paperlib.artifacts.comparison import Artifact, Comparison
from paperlib.errors import Refused

TOP = paths.ROOT
LADDER, ABLATION, TIMED = "fig-attack-ladder", "tab-ablation", "tab-cost"
VERDICTS, STATEMENTS = 18, 74  # the lines of the ledger, and of the boxes of these records
ALL = f"{STATEMENTS} of {STATEMENTS} statements equal"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository with a record of every artifact, and a file in place of each of its figures."""
    folder = tmp_path_factory.mktemp("committed")
    for name in report.reading_order():
        records.save(made(name), folder / "results" / "smoke" / f"{name}.json")
        for part in artifacts.parts(name):
            figure = folder / "figures" / "smoke" / paths.figure("smoke", name, part).name
            figure.parent.mkdir(parents=True, exist_ok=True)
            figure.write_bytes(f"a picture of {name} {part}".encode())
    for name in ("CITATION.cff", "pyproject.toml"):
        shutil.copy(TOP / name, folder)
    commit(folder)
    return folder


@pytest.fixture
def folder(repository, tmp_path, monkeypatch):
    """results/smoke of a copy of that repository, which the project's folders are set to."""
    root = shutil.copytree(repository, tmp_path / "copy")
    monkeypatch.setattr(paths, "ROOT", root)
    for name in ("RESULTS", "FIGURES", "BUILD"):
        monkeypatch.setattr(paths, name, root / name.lower())
    return paths.RESULTS / "smoke"


def compared(*names):
    """My run in the working tree against HEAD's: these artifacts, or all."""
    return comparison.of("smoke", names or report.reading_order())


def change(folder, artifact, edit, **labels):
    """Apply `edit` to each row of the record that has these labels; returns how many there are."""
    path = folder / f"{artifact}.json"
    content = records.load(path)
    rows = [r for r in content["rows"] if all(r.get(name) == value for name, value in labels.items())]
    for entry in rows:
        edit(entry)
    records.save(content, path)
    return len(rows)


def moved_to(low, high):
    return lambda entry: entry.update(value=(low + high) / 2, low=low, high=high)


@pytest.fixture
def call(monkeypatch, capsys):
    """A function of arguments: exit status, lines of output, complaint."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["paperlib", *arguments, "--profile", "smoke"])
        code = command_line.main()
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run


# ---- numbers -----------------------------------------------------------------------------------------------------


def statuses(mine, committed):
    mine, committed = ([rows] if isinstance(rows, dict) else rows for rows in (mine, committed))
    return [n.status for n in comparison.numbers(record(ABLATION, mine), record(ABLATION, committed))]


def number(value=0.5, low=0.4, high=0.6, **labels):
    return row("accuracy", value, low, high, **labels)


def test_the_status_of_a_number_by_hand():
    committed, alone, nothing = number(), number(0.5, None, None), number(None, None, None)
    for same in (committed, alone, nothing):
        assert statuses(same, same) == ["identical"]
    assert statuses(number(0.5, 0.3, 0.7, n=50), committed) == ["inside the interval"]
    for end in (0.4, 0.6):
        assert statuses(number(end, end - 0.1, end + 0.1), committed) == ["inside the interval"]
    for other in (0.39, 0.61, None):
        assert statuses(number(other), committed) == ["outside the interval"]
    assert statuses(number(0.75, None, None), alone) == ["different, without an interval"]
    assert statuses(committed, nothing) == ["different, without an interval"]
    assert statuses(number(0.6, 0.5, 0.7), number(0.5, 0.5, 0.5)) == ["different, without an interval"]
    assert statuses(number(9.0, timed=True), number(timed=True)) == ["timed"]
    assert statuses(number(), number(timed=True)) == ["timed", "only mine"]  # another row, though all else is alike


def test_rows_match_by_labels_and_seeds_in_the_committed_order():
    entry = number(training="sr")
    assert statuses(dict(reversed(entry.items())) | {"experiments": ["new"], "doubts": ["why"]}, entry) == ["identical"]
    assert statuses(number(seeds=[0]), number(seeds=[1])) == ["only committed", "only mine"]
    mine = [number(training="at"), number(training="sr")]
    found = comparison.numbers(
        record(ABLATION, mine), record(ABLATION, [number(training="vanilla"), number(training="sr")])
    )
    assert [(n.label.split(",")[1].split()[1], n.status) for n in found] == [
        ("vanilla", "only committed"),
        ("sr", "identical"),
        ("at", "only mine"),
    ]
    with pytest.raises(Refused, match="tab-ablation with fig-lambda"):
        comparison.numbers(record(ABLATION, mine), record("fig-lambda", mine))


def test_chance_is_the_share_that_two_independent_runs_put_outside():
    """10,000 values drawn twice with an error of 0.01: a share outside has a standard error of 0.4 %."""
    rng = np.random.RandomState(0)
    truth = rng.uniform(0, 1, 10_000)
    runs = [
        [number(v, v - 0.0196, v + 0.0196, eps=i) for i, v in enumerate(truth + rng.normal(0, 0.01, len(truth)))]
        for _ in range(2)
    ]
    found = comparison.Artifact("a", numbers=comparison.numbers(*(record(ABLATION, rows) for rows in runs)))
    assert found.judged == 10_000 and found.outside / 10_000 == pytest.approx(comparison.CHANCE, abs=0.012)
    assert comparison.chance_explains(found.outside, found.judged)
    assert found.count("identical") == 0 and found.count("inside the interval") == 10_000 - found.outside


@pytest.mark.parametrize("judged", [0, 1, 12, 40])
def test_the_binomial_rule_by_summing(judged):
    p = 2 * (1 - 0.5 * (1 + math.erf(1.96 / math.sqrt(2) / math.sqrt(2))))  # P(|Z| > 1.96/√2) by the normal's integral
    for outside in range(judged + 1):
        tail = sum(math.comb(judged, k) * p**k * (1 - p) ** (judged - k) for k in range(outside, judged + 1))
        assert comparison.chance_explains(outside, judged) == (tail >= 0.01)


# ---- a whole profile ---------------------------------------------------------------------------------------------


def test_the_committed_run_against_itself(folder, call):
    committed = {name: json.loads((folder / f"{name}.json").read_text()) for name in report.reading_order()}
    timed = [r for r in committed[TIMED]["rows"] if r.get("timed")]
    count = sum(len(c["rows"]) for c in committed.values()) - len(timed)
    figures = len(list(paths.FIGURES.rglob("*.png"))) - 1  # that of the costs shows seconds
    line = (
        f"{VERDICTS} of {VERDICTS} verdicts equal, {ALL}, "
        f"{count:,} of {count:,} numbers identical, {figures} of {figures} figures identical; "
        f"and {len(timed)} timed numbers and 1 figure of them, which differ between any two runs."
    )
    now = compared()
    assert timed and (now.first_line(), now.last_line()) == (line, "Reproduced: nothing differs.")
    code, out, err = call("compare")
    came = f"{len(committed)} of {len(committed)} records came with"
    assert (code, out[0], err) == (0, line, "") and len(out) == 3 and out[1].startswith(came)
    for name in committed:
        records.save_run(folder / f"{name}.json", seconds=1.0)
    assert call("compare") == (0, [line, "Reproduced: nothing differs."], "")


def test_seconds_and_their_figure_do_not_count(folder):
    before = compared(TIMED).first_line()
    assert change(folder, TIMED, lambda entry: entry.update(value=7.0), timed=True, what="seconds", training="vanilla")
    paths.figure("smoke", TIMED).write_bytes(b"slower")
    after = compared(TIMED)
    assert (after.first_line(), after.differences(), after.failures()) == (before, [], [])
    (folder / f"{TIMED}.json").unlink()  # what does not count does not either where it is missing
    lost, ending = compared(TIMED), before.partition(";")[2]
    assert lost.first_line().endswith(f", 0 of 0 figures identical;{ending}") and len(lost.failures()) == 1


def test_a_verdict_that_turned_is_shown_with_both_numbers_and_fails(folder, call):
    change(folder, LADDER, moved_to(0.1, 0.3), quantity="difference", training="sr", attack=labels.WORST)
    commit_again(folder)
    rows = change(folder, LADDER, moved_to(-0.3, -0.1), quantity="difference", training="sr", attack=labels.WORST)
    code, out, err = call("compare")
    assert (code, err) == (1, "") and out[0].startswith(f"17 of 18 verdicts equal, {ALL}, ")
    (line,) = (line for line in out if ", verdict " in line)
    assert line.startswith(
        f"{LADDER}, verdict C3, alone (SR is more robust than vanilla training.): mine not supported ("
    )
    mine, old = line.split(", committed supported (")
    assert "-20.0 points [-30.0, -10.0]" in mine and "+20.0 points [+10.0, +30.0]" in old
    (summary,) = (line for line in out if line.startswith(f"{LADDER}: "))
    assert summary.startswith(f"{LADDER}: {rows} of ") and "numbers outside the committed interval (" in summary
    assert out[-1] == "Not reproduced: 1 verdict differs."


def test_a_statement_that_turned_is_shown_and_does_not_fail(folder, call):
    difference = {"quantity": "difference", "training": "sr", "against": "vanilla", "attack": "pgd"}
    change(folder, ABLATION, moved_to(0.1, 0.3), **difference)
    commit_again(folder)
    change(folder, ABLATION, moved_to(-0.3, -0.1), **difference)
    code, out, _ = call("compare")
    assert code == 0 and out[0].startswith(
        f"18 of 18 verdicts equal, {STATEMENTS - 1} of {STATEMENTS} statements equal, "
    )
    (line,) = (line for line in out if ", statement " in line)
    assert "SR is more robust than vanilla under PGD-20 at every radius.: mine does not hold (" in line
    assert ", committed holds (" in line and out[-1].startswith(
        "Reproduced: every verdict is equal, and chance explains "
    )


def commit_again(folder):
    for arguments in (["add", "--all"], ["commit", "--quiet", "--message", "another run"]):
        git(folder, *arguments).check_returncode()


def test_more_numbers_outside_than_chance_explains_fail(folder):
    """In an artifact on which no verdict rests, and beside another that is unchanged but counts."""
    path = folder / "tab-whitebox.json"
    content = records.load(path)
    names = ("tab-whitebox", "tab-blackbox")
    judged = [
        r for name in names for r in records.load(folder / f"{name}.json")["rows"] if (r["low"] or 0) < (r["high"] or 0)
    ]
    most = max(k for k in range(len(judged)) if comparison.chance_explains(k, len(judged)))
    movable = [r for r in content["rows"] if (r["low"] or 0) < (r["high"] or 0)]
    assert 0.17 * len(judged) < most < len(movable)
    for count in (most, most + 1):
        for entry in movable[:count]:
            entry["value"] = 9.0
        records.save(content, path)
        now = compared(*names)
        text = (
            f"{count} of {len(judged):,} numbers outside the committed interval, {0.16577 * len(judged):,.0f} expected"
        )
        assert text in now.last_line() and now.artifacts[1].summary() == ""
        start = (
            f"{count} of {len(movable):,} numbers outside the committed interval ({0.16577 * len(movable):.0f} expected"
        )
        assert now.artifacts[0].summary().startswith(start)
        assert now.failures() == ([] if count == most else [f"{text}, more than chance explains"])


def test_every_number_is_listed_on_demand(folder, call):
    rows = change(folder, "tab-whitebox", lambda entry: entry.update(value=9.0))
    assert not any(line.startswith("  ") for line in call("compare")[1])
    listed = [line for line in call("compare", "--all")[1] if line.startswith("  ")]
    assert len(listed) == rows and all(": mine 9.0" in line and ", committed " in line for line in listed)


def test_a_row_that_only_one_run_has_is_said_and_a_missing_one_counts_as_outside(folder):
    path = folder / "tab-whitebox.json"
    content = records.load(path)
    content["rows"] = [*content["rows"][2:], row("another quantity", 1.0)]
    records.save(content, path)
    now, total = compared("tab-whitebox"), len(content["rows"]) + 1
    (artifact,) = now.artifacts
    assert artifact.outside == 2 and ", 2 only committed, 1 only mine" in artifact.summary()
    assert f" {total - 2:,} of {total:,} numbers identical" in now.first_line()


@pytest.mark.parametrize("artifact", [ABLATION, "tab-whitebox"])
def test_figures_are_compared_by_bytes(folder, artifact):
    count = len(artifacts.parts(artifact))
    figure = paths.figure("smoke", artifact)
    figure.write_bytes(figure.read_bytes() + b".")
    for _ in range(2):  # changed, then missing
        now = compared(artifact)
        assert f" {count - 1} of {count} figures identical" in now.first_line() and now.failures() == []
        (line,) = now.differences()
        assert line.startswith(f"{artifact}: 0 of ") and line.endswith(f", 1 of {count} figures differ.")
        figure.unlink(missing_ok=True)


# ---- gaps --------------------------------------------------------------------------------------------------------

LOSSES = {
    "missing": (None, "no such record"),
    "cut off": ("{", "damaged"),
    "of no kind": ("[]", "no record"),
    "another's": (ABLATION, "two artifacts"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_record_of_mine_that_cannot_be_read_is_one_line_and_never_equal(folder, call, loss):
    content, words = LOSSES[loss]
    path, total = folder / f"{LADDER}.json", len(records.load(folder / f"{LADDER}.json")["rows"])
    before = compared().first_line()
    if content == ABLATION:
        shutil.copy(folder / f"{ABLATION}.json", path)
    else:
        path.unlink()
        if content:
            path.write_text(content)
    code, out, err = call("compare")
    (line,) = (line for line in out if line.startswith(LADDER))
    assert words in line and (code, err) == (1, "")
    assert "Not reproduced: 1 record of mine cannot be compared." in out
    numbers = before.partition(" numbers identical")[0].split()[-1]
    figures = before.partition(" figures identical")[0].split()[-1]
    lost = f"{int(numbers.replace(',', '')) - total:,} of {numbers} numbers identical"
    others = f"{STATEMENTS - 1} of {STATEMENTS} statements equal"  # the ladder has one
    assert out[0].startswith(f"16 of 18 verdicts equal, {others}, {lost}, {int(figures) - 1} of {figures}")


def test_a_record_without_the_rows_of_a_verdict_is_one_line_as_well(folder, call):
    path = folder / "fig-gradient-maps.json"
    records.save(records.load(path) | {"rows": []}, path)
    code, out, err = call("compare")
    (line,) = (line for line in out if line.startswith("fig-gradient-maps"))
    assert "need rows that are not in the record (KeyError: " in line and (code, err) == (1, "")
    assert out[0].startswith("17 of 18 verdicts equal, ")


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_an_artifact_without_a_committed_record_is_one_line_and_not_counted(folder, call, content):
    path = folder / f"{LADDER}.json"
    mine, total = path.read_bytes(), len(records.load(path)["rows"])
    before = compared().first_line().partition(" numbers identical")[0].split()[-1]
    path.unlink() if content is None else path.write_text(content)
    commit_again(folder)
    path.write_bytes(mine)
    code, out, _ = call("compare")
    (line,) = (line for line in out if line.startswith(f"{LADDER}: "))
    assert ("no committed record" in line) if content is None else ("the committed record cannot be compared: " in line)
    left = int(before.replace(",", "")) - total
    assert code == 0 and out[0].startswith(
        f"16 of 16 verdicts equal, {STATEMENTS - 1} of {STATEMENTS - 1} statements equal, {left:,} of {left:,} "
    )


def test_an_artifact_without_a_record_in_either_run_is_not_spoken_of(folder, call):
    (folder / f"{LADDER}.json").unlink()
    commit_again(folder)
    code, out, _ = call("compare")
    assert code == 0 and not any(line.startswith(LADDER) for line in out) and out[-1] == "Reproduced: nothing differs."


def test_without_a_committed_run_or_git_there_is_nothing_to_compare(folder, call, monkeypatch):
    refusal = "No run of profile smoke is committed here"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "")
        assert compared() is None
    shutil.rmtree(paths.ROOT / ".git")
    code, out, err = call("compare")
    assert (code, out) == (2, []) and err.startswith(refusal) and err.count("\n") == 1
    inner = paths.RESULTS.parent  # inside another repository that has files of these names at its top
    outer = inner.parent / "outer"
    shutil.copytree(inner, outer)
    commit(outer)
    shutil.move(inner, outer / "inner")
    for name in ("RESULTS", "FIGURES"):
        monkeypatch.setattr(paths, name, outer / "inner" / name.lower())
    monkeypatch.setattr(paths, "ROOT", outer / "inner")
    assert call("compare")[0] == 2 and call("certificate")[2].startswith(refusal)


def test_a_comparison_needs_no_torch():
    code = "import sys, paperlib.artifacts.certificate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ---- the certificate ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(folder):
    """A run of my own: one verdict turned, 30 seconds a notebook."""
    change(folder, LADDER, moved_to(-0.3, -0.1), quantity="difference", training="sr")
    for name in report.reading_order():
        records.save_run(folder / f"{name}.json", seconds=30.0)
    return folder


def test_the_certificate_holds_the_comparison_machine_and_digests(run, call, monkeypatch):
    monkeypatch.setattr(arithmetic, "processor", lambda: "a processor")
    elsewhere = json.loads((run / f"{LADDER}.run.json").read_text()) | {
        "host": "elsewhere",
        "date": "2026-01-02T03:04:05",
    }
    (run / f"{LADDER}.run.json").write_text(json.dumps(elsewhere))
    code, out, err = call("certificate")
    now = compared()
    assert (code, err) == (1, "") and out[:2] == [now.first_line(), now.last_line()]
    page = (run / "CERTIFICATE.md").read_text(encoding="utf-8")
    for text in (now.first_line(), now.last_line(), *now.differences()):
        assert text in page
    facts = dict(
        line.strip("| ").split(" | ") for line in page.splitlines() if line.count(" | ") == 1 and len(line) > 5
    )
    head = git(run, "rev-parse", "HEAD").stdout.strip()
    assert facts["processor"].startswith("a processor, ") and facts["Python"] == ".".join(
        map(str, sys.version_info[:3])
    )
    assert facts["notebooks made on another machine"] == f"1 of {len(report.reading_order())}"
    assert facts["made from"].startswith("2026-01-02T03:04:05 to 20")
    assert (
        facts["time taken"].startswith(f"{len(report.reading_order()) / 2} minutes")
        and facts["compared with"] == f"`{head}`"
    )
    assert facts["code of the run"] == f"`{'f' * 40}` (clean tree)" and facts["packages"] == "python 3"
    for path in [*run.glob("*.json"), *paths.FIGURES.rglob("*.png")]:
        if not path.name.endswith(".run.json"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert facts[f"`{path.relative_to(paths.ROOT)}`"] == f"`{digest}`"


def test_codecheck_follows_its_specification_and_keeps_what_was_filled_in(run, call):
    git(run, "config", "user.name", "Ada Lovelace")
    call("certificate")
    path = paths.ROOT / "codecheck.yml"
    assert path.read_text(encoding="utf-8").startswith("---\n")
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert entries["version"] == "https://codecheck.org.uk/spec/config/2.0/"
    assert set(entries) >= {"manifest", "paper", "codechecker", "report", "summary", "certificate", "check_time"}
    assert entries["paper"]["title"].startswith("Enhancing Adversarial Robustness in SNNs")
    assert [a["name"] for a in entries["paper"]["authors"]][::5] == ["Yujia Liu", "Zhaofei Yu"]
    assert entries["codechecker"] == [{"name": "Ada Lovelace", "ORCID": "FIXME"}]
    assert entries["report"] == entries["certificate"] == "FIXME" and "Not reproduced: " in entries["summary"]
    there = {str(p.relative_to(paths.ROOT)) for p in [*run.glob("*.json"), *paths.FIGURES.rglob("*.png")]}
    assert {item["file"] for item in entries["manifest"]} == {p for p in there if not p.endswith(".run.json")}
    assert all(item["comment"] for item in entries["manifest"])

    entries |= {"certificate": "2026-001", "summary": "of another run"}
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    call("certificate")
    again = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert again["certificate"] == "2026-001" and "Not reproduced: " in again["summary"]
    path.write_text("not: [closed", encoding="utf-8")
    assert call("certificate")[0] == 2


def test_only_a_run_of_this_checkout_is_certified(run, call):
    (run / f"{LADDER}.run.json").unlink()
    code, _, err = call("certificate")
    assert code == 2 and f"has made the records of {LADDER}; make reproduce PROFILE=smoke" in err
    (run / f"{LADDER}.run.json").write_text("{")
    code, _, err = call("certificate")
    assert code == 2 and f"{LADDER}.run.json is damaged" in err
    assert not (run / "CERTIFICATE.md").exists() and not (paths.ROOT / "codecheck.yml").exists()
    (run / f"{LADDER}.json").unlink()  # a missing record is certified as missing
    assert call("certificate")[0] == 1 and "no such record" in (run / "CERTIFICATE.md").read_text(encoding="utf-8")


def test_what_users_write_is_not_committed():
    for name in ("codecheck.yml", "results/laptop/CERTIFICATE.md"):
        if git(TOP, "rev-parse").returncode:
            pytest.skip("needs git")
        assert git(TOP, "check-ignore", "--quiet", name).returncode == 0


def test_where_portable_arithmetic_is_not_exact_the_verdicts_alone_decide(monkeypatch):
    rows = [row("accuracy", 0.5, 0.4, 0.6, place=place) for place in range(60)]
    moved = [r | {"value": 0.9} for r in rows]
    artifact = Artifact("tab-x", numbers=comparison.numbers(record("tab-x", moved), record("tab-x", rows)))
    everything = Comparison([artifact])
    assert everything.failures() == [
        "60 of 60 numbers outside the committed interval, 10 expected, more than chance explains"
    ]
    monkeypatch.setattr(arithmetic, "is_exact", lambda: False)
    assert everything.failures() == [] and "the arithmetic is only the nearest there is" in everything.last_line()
