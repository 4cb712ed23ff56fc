"""The report: claims first, every artifact, links that lead somewhere, gaps that are marked, nothing typed by hand."""

import csv
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

import handmade
import pytest
from handmade import made
from house import commit, git

from paperlib import __main__ as command_line
from paperlib import artifacts, paths, records
from paperlib.artifacts import claims, comparison, contents, reading, report, summary

ARTIFACTS = report.reading_order()
GONE = "fig-attack-ladder"  # the artifact that is missing or damaged


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The records of every artifact."""
    folder = tmp_path_factory.mktemp("results")
    for artifact in ARTIFACTS:
        records.save(made(artifact), folder / "smoke" / f"{artifact}.json")
    return folder


@pytest.fixture
def folder(results, tmp_path, monkeypatch):
    """results/smoke with the record of every artifact, under a root of its own."""
    for name in ("RESULTS", "FIGURES", "BUILD"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    shutil.copytree(results, paths.RESULTS)
    return paths.RESULTS / "smoke"


@pytest.fixture
def alone(monkeypatch):
    """The report has one artifact, which saves the time of the others."""
    monkeypatch.setattr(report, "reading_order", lambda: [GONE])


def written(folder):
    """The artifacts without a record, the text and the page."""
    gaps = report.write("smoke", "A title of its own")
    text, html = ((folder / f"REPORT.{end}").read_text(encoding="utf-8") for end in ("md", "html"))
    return gaps, text, html


def section(text, heading):
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0].strip()


def table(text):
    """The lines of a table as lists of cells, below its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def ledger(text):
    return table(section(text, "The claims"))


def test_it_opens_with_the_claims_then_shows_every_artifact(folder):
    gaps, text, html = written(folder)
    headings = re.findall(r"^#+ .+$", text, flags=re.MULTILINE)
    assert headings == [
        "# What was measured: profile `smoke`",
        "## The claims",
        "## Which number to quote",
        "## Do the records agree?",
        *(f"## `{artifact}`" for artifact in ARTIFACTS),
        "## Published by others",
    ]
    assert gaps == [] and "Gap" not in text and "A title of its own" in text.split("## ")[0]
    found = [re.sub(r"</?code>", "`", inner) for _, inner in re.findall(r"<h([12])[^>]*>(.*?)</h\1>", html)]
    assert found == [heading.lstrip("# ") for heading in headings]
    listed = html.partition("<nav")[2].partition("</nav>")[0]
    assert re.findall(r'href="#([^"]+)"', listed) == re.findall(r'<h2 id="([^"]+)">', html) and len(listed) > 100
    assert html.index("<nav") < html.index("<h2")
    rows = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|:- ")]
    assert html.count("<tr>") == len(rows) and html.startswith("<!doctype html>") and "</html>" in html


def test_an_artifact_that_nobody_put_in_order_is_shown_all_the_same_and_a_notebook_without_one_is_not(monkeypatch):
    assert [name for name in contents.LINES if name in ARTIFACTS] == ARTIFACTS
    assert "your-network" in paths.notebooks() and "your-network" not in ARTIFACTS
    monkeypatch.setattr(contents, "LINES", {"thm-ratio": "", "fig-not-written-yet": ""})
    assert report.reading_order() == ["thm-ratio"] + sorted(set(ARTIFACTS) - {"thm-ratio"})


def test_each_section_shows_figures_finding_tables_and_provenance(folder):
    _, text, html = written(folder)
    shown = []
    for artifact in ARTIFACTS:
        record, own = records.load(folder / f"{artifact}.json"), section(text, f"`{artifact}`")
        assert claims.finding(record) in own
        for part in artifacts.parts(artifact):
            shown.append(os.path.relpath(paths.figure("smoke", artifact, part), folder))
            assert f"![{artifacts.headline(record, part)}]({shown[-1]})" in own and artifacts.table(record, part) in own
            assert f"**{artifacts.headline(record, part)}** ({artifacts.caption(record, part)})" in own
        assert own.splitlines()[-1].startswith(
            "Provenance: code `ffffffffffff` (clean tree), recipe 1, portable arithmetic, "
            "device cpu, data Stripes (sha256 `000000000000`); "
        )
        assert "samples = 100" in own and own.endswith("; python 3.")
    assert re.findall(r"!\[.*?\]\((.*?)\)", text) == shown == re.findall(r'<img src="(.*?)"', html)
    assert len(set(shown)) == len(shown) > len(ARTIFACTS)
    assert shown[0] == "../../figures/smoke/fig-random-vs-adversarial.png"


@pytest.mark.parametrize(("clean", "words"), [(False, "changed tree"), (None, "outside git")])
def test_the_provenance_says_what_state_the_code_was_in(folder, alone, clean, words):
    record = records.load(folder / f"{GONE}.json")
    record["provenance"]["clean"] = clean
    records.save(record, folder / f"{GONE}.json")
    assert f"({words})" in section(written(folder)[1], f"`{GONE}`")


def test_two_writings_give_the_same_bytes_and_no_path_of_this_machine(folder, tmp_path):
    (folder / f"{GONE}.json").unlink()
    (folder / "thm-ratio.json").write_text("{")
    first, second = written(folder), written(folder)
    assert first == second and not any(str(tmp_path) in page for page in first[1:])


# ---- verdicts come from the records ------------------------------------------------------------------------------


def test_the_ledger_is_what_claims_say(folder):
    found = claims.verdicts({artifact: records.load(folder / f"{artifact}.json") for artifact in ARTIFACTS})
    text = written(folder)[1]
    assert [[line[i] for i in (0, 1, 2, 4)] for line in ledger(text)] == [
        [v.claim.id, v.claim.statement, f"**{v.verdict}**", v.reason] for v in found
    ]
    assert claims.multiplicity(found) in section(text, "The claims")


def test_what_holm_leaves_of_a_verdict_stands_beside_it(folder):
    for path in folder.glob("*.json"):
        other = records.load(path)
        records.save(other | {"rows": [{k: v for k, v in row.items() if k != "p"} for row in other["rows"]]}, path)
    record = records.load(folder / f"{GONE}.json")
    for p, words in ((0.01, "supported, p = 0.02"), (0.04, "inconclusive at this scale, p = 0.08")):  # two verdicts
        for row in reading.select(record, quantity="difference", training="sr"):
            row.update(value=0.2, low=0.1, high=0.3, p=p)
        for row in reading.select(record, quantity="difference", training="at+sr"):
            row.update(value=0.2, low=-0.1, high=0.3, p=0.5)
        records.save(record, folder / f"{GONE}.json")
        lines = {line[0]: line for line in ledger(written(folder)[1])}
        assert lines["C3, alone"][2:4] == ["**supported**", words]
        assert lines["C3, with AT"][2:4] == ["**inconclusive at this scale**", "inconclusive at this scale, p = 0.5"]
        assert lines["C2, the statement"][3] == "–"


@pytest.fixture
def beside(folder, monkeypatch):
    """The text side by side of three profiles: smoke, a copy in which C3 turns round, and one without records."""
    shutil.copytree(folder, folder.parent / "other")
    record = records.load(folder.parent / "other" / f"{GONE}.json")
    for row in reading.select(record, quantity="difference"):
        row.update(value=-0.2, low=-0.3, high=-0.1)
    records.save(record, folder.parent / "other" / f"{GONE}.json")
    (folder.parent / "other" / "thm-ratio.json").write_text("{")
    monkeypatch.setattr(summary, "PROFILES", {"smoke": "Stripes", "other": "Dots", "none": "Nothing"})
    return section(written(folder)[1], "Side by side")


def test_the_profiles_stand_side_by_side(beside, folder):
    verdicts = claims.verdicts(report.found_in("smoke"))
    lines = table(beside.partition("\n\n")[0])
    assert [line[0].partition(":")[0] for line in lines] == [v.claim.id for v in verdicts]
    for line, one in zip(lines, verdicts, strict=True):
        assert line[1] == f"**{one.verdict}**<br>{one.main or one.reason}" and line[3] == "not measured"
    by_id = {line[0].partition(":")[0]: line for line in lines}
    assert by_id["C3, alone"][2] == "**not supported**<br>-20.0 points [-30.0, -10.0] at 8/255"
    assert by_id["C2, the statement"][2] == "not measured"  # its record is damaged


def test_what_agrees_with_the_paper_follows_from_the_verdicts(beside):
    paragraphs = dict(re.findall(r"^\*\*(C\d)\.\*\* (.*)$", beside, flags=re.MULTILINE))
    assert list(paragraphs) == list(claims.PAPER)
    assert (
        "Does not agree: Dots (alone and with AT). " in paragraphs["C3"]
        and "Not measured: Nothing. " in paragraphs["C3"]
    )
    assert "Not measured: Dots; Nothing." in paragraphs["C2"]
    assert "Agrees with the paper: Stripes (the statement)" in paragraphs["C2"]
    found = claims.verdicts(report.found_in("smoke")) + claims.verdicts(report.found_in("other"))
    for claim, text in paragraphs.items():
        words = {v.verdict for v in found if v.claim.id.startswith(claim)}
        undecided = bool(words & {claims.NOT_SUPPORTED, claims.INCONCLUSIVE})
        assert (summary.WHY[claim][1:] in text) == undecided == ("Why that may be" in text)
        assert not re.search(r"\d+(\.\d+)? (points|%)", text)  # no number that is not rendered from a record


def test_without_a_committed_profile_nothing_is_side_by_side(folder):
    assert "Side by side" not in written(folder)[1]


def test_another_record_turns_the_verdict(folder):
    for low, high, word in ((0.1, 0.3, "supported"), (-0.3, -0.1, "not supported"), (-0.1, 0.1, "inconclusive")):
        record = records.load(folder / f"{GONE}.json")
        for row in reading.select(record, quantity="difference", training="sr"):
            row.update(value=(low + high) / 2, low=low, high=high)
        records.save(record, folder / f"{GONE}.json")
        _, text, _ = written(folder)
        (line,) = (line for line in ledger(text) if line[0] == "C3, alone")
        assert line[2].startswith(f"**{word}")
        own = section(text, f"`{GONE}`")
        assert f"C3, alone: SR is more robust than vanilla training. **{word.capitalize()}" in own


def test_every_sentence_of_the_ledger_is_the_judges(folder, monkeypatch):
    line = claims.Claim("C0", "Whatever is said.", GONE, lambda record: ("a word of its own", "for a reason."))
    monkeypatch.setattr(claims, "LEDGER", (line,))
    assert ledger(written(folder)[1]) == [["C0", "Whatever is said.", "**a word of its own**", "–", "for a reason."]]


def test_published_numbers_each_come_with_their_source(folder):
    own = section(written(folder)[1], "Published by others")
    with (paths.PUBLISHED / "numbers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and [line[5:7] for line in table(own)] == [[row["value"], row["source"]] for row in rows]
    assert all(row["source"] for row in rows if row["value"])
    assert all(line[7].startswith("not comparable (data: Stripes; network: ") for line in table(own))


@pytest.mark.parametrize(
    ("data", "network", "radius", "ours"),
    [
        ("CIFAR-10 (JPEG copy)", "VGG-11, T = 8", 8.0, "comparable: 20.0 % [10.0, 30.0]"),
        ("CIFAR-100", "VGG-11, T = 8", 8.0, "not comparable (data: CIFAR-100)"),
        ("CIFAR-10", "conv-8-16, T = 4", 8.0, "not comparable (network: conv-8-16, T = 4)"),
        ("CIFAR-10", "VGG-11, T = 8", 4.0, "not comparable (attack: no FGSM at 8/255 on SR)"),
    ],
)
def test_a_published_number_compares_where_data_network_attack_and_radius_do(data, network, radius, ours, monkeypatch):
    rows = [handmade.row("mean accuracy", 0.2, 0.1, 0.3, training="sr", attack="fgsm", eps_255=radius)]
    rows.append(handmade.row("mean accuracy", 0.9, 0.8, 1.0, training="at", attack="fgsm", eps_255=8.0))
    found = handmade.record("tab-ablation", rows)
    found["provenance"]["data"]["title"] = data
    monkeypatch.setattr(report, "network_of", lambda profile: network)
    (line,) = (
        line for line in table(report.published({"tab-ablation": found}, "smoke")) if line[2:4] == ["SR", "FGSM"]
    )
    assert line[7] == ours
    assert {line[7] for line in table(report.published({}, "smoke"))} == {"not measured"}


def test_the_network_of_a_profile_is_named_as_papers_name_it():
    assert report.network_of("paper") == "VGG-11, T = 8" and report.network_of("laptop") == "conv-8-16, T = 4"


# ---- gaps --------------------------------------------------------------------------------------------------------

DAMAGES = {
    "missing": (None, "no such record"),
    "cut off": (b"{", "damaged"),
    "of no kind": (b"[]", "no record"),
    "not text": (b"\xff\xfe", "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_that_cannot_be_read_is_a_marked_gap_and_the_rest_is_there(folder, damage):
    content, words = DAMAGES[damage]
    path = folder / f"{GONE}.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    gaps, text, html = written(folder)
    own = section(text, f"`{GONE}`")
    assert gaps == [GONE] and own.startswith("**Gap.**") and f"{GONE}.json" in own and words in own
    assert "![" not in own and "Provenance" not in own
    assert text.count("**Gap.**") == 1 and text.count("Provenance:") == len(ARTIFACTS) - 1
    verdicts = {line[0]: line[2] for line in ledger(text)}
    assert verdicts["C3, alone"] == verdicts["C3, with AT"] == "**not measured**"
    assert verdicts["C2, the statement"] == "**supported**"
    assert "<strong>Gap.</strong>" in html


def test_a_failed_notebook_is_named_as_the_reason(folder):
    (folder / f"{GONE}.json").unlink()
    evidence = paths.BUILD / "smoke" / f"{GONE}.failed.ipynb"
    assert "evidence" not in section(written(folder)[1], f"`{GONE}`")
    evidence.parent.mkdir(parents=True)
    evidence.touch()
    own = section(written(folder)[1], f"`{GONE}`")
    assert f"the evidence is `build/smoke/{GONE}.failed.ipynb`" in own


def test_without_any_record_there_is_a_report_of_gaps(folder):
    for path in folder.glob("*.json"):
        path.unlink()
    gaps, text, _ = written(folder)
    assert gaps == report.reading_order() and text.count("**Gap.**") == len(ARTIFACTS)
    assert "has no record in this profile" in section(text, "Which number to quote")
    assert {line[2] for line in ledger(text)} == {"**not measured**"}


@pytest.mark.parametrize("gap", [False, True])
def test_the_exit_code_tells_of_gaps(folder, monkeypatch, capsys, gap):
    if gap:
        (folder / f"{GONE}.json").unlink()
    monkeypatch.setattr(sys, "argv", ["paperlib", "report", "--profile", "smoke"])
    assert command_line.main() == (1 if gap else 0)
    said = capsys.readouterr().out
    assert "results/smoke/REPORT.md" in said and ((f"with gaps: {GONE}." in said) == gap)
    assert (folder / "REPORT.md").exists() and (folder / "REPORT.html").exists()


# ---- the committed run -------------------------------------------------------------------------------------------


def opening(text):
    return [line for line in text.splitlines() if line][1]


def test_it_opens_with_the_comparison_where_a_run_is_committed_and_stays_the_same_bytes(folder, tmp_path):
    assert opening(written(folder)[1]).startswith("A title of its own")  # nothing is committed
    commit(tmp_path)
    first = written(folder)
    line = comparison.of("smoke", ARTIFACTS).first_line()
    assert opening(first[1]) == f"Beside the committed run: {line}" and "18 of 18 verdicts" in line
    git(tmp_path, "add", "--all").check_returncode()
    git(tmp_path, "commit", "--quiet", "--message", "the report as well").check_returncode()
    for path in folder.glob("REPORT.*"):
        path.unlink()
    assert written(folder) == first

    record = records.load(folder / "tab-whitebox.json")
    record["rows"][0]["value"] = 9.0
    records.save(record, folder / "tab-whitebox.json")
    _, text, html = written(folder)
    assert opening(text).endswith(" `make compare PROFILE=smoke` shows what differs.") and opening(text) not in first[1]
    assert opening(text).partition(" `")[0] in html


def committed_profiles():
    listed = git(paths.ROOT, "ls-tree", "-r", "--name-only", "HEAD", "results").stdout.splitlines()
    names = {Path(name).parts[1] for name in listed if name.endswith("REPORT.md")}
    return sorted(name for name in names if (paths.FIGURES / name).is_dir())  # the others have no record yet


@pytest.mark.parametrize("profile", committed_profiles())
def test_a_committed_report_says_that_the_run_it_was_committed_with_is_identical(profile, tmp_path, monkeypatch):
    """So `make reproduce` in a fresh clone does not change it.  Where this fails: write the report again and amend."""
    archive = [
        "archive",
        "--format=tar",
        f"--output={tmp_path}.tar",
        "HEAD",
        f"results/{profile}",
        f"figures/{profile}",
    ]
    git(paths.ROOT, *archive).check_returncode()
    with tarfile.open(f"{tmp_path}.tar") as file:
        file.extractall(tmp_path, filter="data")
    commit(tmp_path)
    for name in ("RESULTS", "FIGURES"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    compared = comparison.of(profile, report.reading_order())
    text = (tmp_path / "results" / profile / "REPORT.md").read_text(encoding="utf-8")
    assert opening(text) == f"Beside the committed run: {compared.first_line()}" and compared.differences() == []


# ---- whatever the records hold -----------------------------------------------------------------------------------


def without_rows(record):
    record["rows"] = []


def with_other_parameters(record):
    record["provenance"]["parameters"] = [3]


def without_data(record):
    record["provenance"]["data"] = {}


def without_labels(record):
    for number, row in enumerate(record["rows"]):
        for name in set(row) - set(records.FIELDS):
            del row[name]
        row["seeds"] = [number]


def test_a_record_that_cannot_be_shown_is_a_marked_gap(folder):
    changes = dict(
        zip(ARTIFACTS, 3 * [without_rows, with_other_parameters, without_data, without_labels], strict=False)
    )
    for artifact, change in changes.items():
        record = made(artifact)
        change(record)
        records.save(record, folder / f"{artifact}.json")
    gaps, text, html = written(folder)
    sure = with_other_parameters, without_data  # in the others an artifact may have something to show
    assert set(gaps) <= set(changes)
    assert set(gaps) >= {artifact for artifact, change in changes.items() if change in sure}
    assert text.count("**Gap.** Its record cannot be shown (") == len(gaps)
    assert ledger(text) and "</html>" in html and "Published by others" in text


def test_the_parts_that_are_no_artifacts_may_fail_as_well(folder, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path)
    (tmp_path / "numbers.csv").write_bytes(b"\xff\xfe")
    monkeypatch.setattr(claims, "verdicts", lambda found: {}["C1"])
    gaps, text, _ = written(folder)
    assert gaps == []
    assert section(text, "The claims") == "**Gap.** This part cannot be shown (KeyError: 'C1')."
    assert section(text, "Published by others").startswith("**Gap.** This part cannot be shown (UnicodeDecodeError: ")


def test_html_in_a_title_is_shown_and_not_obeyed(folder, alone):
    record = made(GONE)
    record["provenance"]["data"]["title"] = "<script>alert(1)</script>"
    records.save(record, folder / f"{GONE}.json")
    _, text, html = written(folder)
    assert "<script>" in text and "<script>" not in html and "&lt;script&gt;" in html


def test_a_profile_without_a_title_is_reported_under_its_name(folder, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PARAMS", tmp_path / "params")
    paths.PARAMS.mkdir()
    (paths.PARAMS / "smoke.yml").write_text("seeds: [0]\n")
    monkeypatch.setattr(sys, "argv", ["paperlib", "report", "--profile", "smoke"])
    assert command_line.main() == 0
    assert "smoke. Every number below" in (paths.RESULTS / "smoke" / "REPORT.md").read_text(encoding="utf-8")
