"""The report: claims first, every artifact, links that lead somewhere, gaps that are marked, nothing typed by hand."""

import csv
import os
import re
import sys

import pytest
from test_tables_and_plots import made

from paperlib import __main__ as command_line
from paperlib import claims, findings, paths, records, report
from paperlib.runs import twins

ARTIFACTS = twins.names()
GONE = "fig-attack-ladder"  # the artifact that is missing or damaged


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """results/smoke with the record and the figure of every artifact, under a root of its own."""
    for name in ("RESULTS", "FIGURES", "BUILD"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for artifact in ARTIFACTS:
        records.save(made(artifact), paths.RESULTS / "smoke" / f"{artifact}.json")
        figure = paths.FIGURES / "smoke" / f"{artifact}.png"
        figure.parent.mkdir(parents=True, exist_ok=True)
        figure.touch()
    return paths.RESULTS / "smoke"


def written(folder):
    """The artifacts without a record, and the text."""
    gaps = report.write("smoke", "A title of its own")
    return gaps, (folder / "REPORT.md").read_text(encoding="utf-8")


def section(text, artifact):
    return text.partition(f"## `{artifact}`\n")[2].partition("\n## ")[0]


def ledger(text):
    """The claims table as lists of cells, below its head."""
    lines = text.partition("## The claims\n")[2].partition("\n## ")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_it_opens_with_the_claims_then_shows_every_artifact(folder):
    gaps, text = written(folder)
    assert gaps == []
    headings = re.findall(r"^#+ .+$", text, flags=re.MULTILINE)
    assert headings[0] == "# What was measured: profile `smoke`" and "A title of its own" in text.split("## ")[0]
    assert headings[1] == "## The claims"
    assert headings[2:-1] == [f"## `{artifact}`" for artifact in report.READING_ORDER]
    assert headings[-1] == "## Published by others"
    assert "Gap" not in text


def test_a_notebook_that_nobody_put_in_order_is_shown_all_the_same(monkeypatch):
    monkeypatch.setattr(report, "READING_ORDER", ("thm-ratio", "fig-not-written-yet"))
    assert report.artifacts() == ["thm-ratio"] + [a for a in ARTIFACTS if a != "thm-ratio"]


def test_each_section_shows_figure_finding_table_and_provenance(folder):
    _, text = written(folder)
    for artifact in ARTIFACTS:
        record, own = records.load(folder / f"{artifact}.json"), section(text, artifact)
        assert findings.finding(record) in own and f"![{findings.headline(record)}](" in own
        assert report.tables.markdown(record) in own
        assert "Provenance: code `ffffffffffff` (clean tree), recipe 1, device cpu, data Stripes" in own
        assert "samples = 100" in own and "python 3" in own


@pytest.mark.parametrize(("clean", "words"), [(False, "changed tree"), (None, "outside git")])
def test_the_provenance_says_what_state_the_code_was_in(folder, clean, words):
    record = records.load(folder / f"{GONE}.json")
    record["provenance"]["clean"] = clean
    records.save(record, folder / f"{GONE}.json")
    assert f"({words})" in section(written(folder)[1], GONE)


def test_every_picture_is_where_the_report_says(folder):
    _, text = written(folder)
    targets = re.findall(r"!\[.*?\]\((.*?)\)", text)
    shown = [(folder / target).resolve() for target in targets]
    every = [paths.figure("smoke", a, part).resolve() for a in report.READING_ORDER for part in findings.parts(a)]
    assert shown == every and len(set(every)) == len(every) > len(ARTIFACTS)
    assert every[0].name == "fig-random-vs-adversarial.png"
    assert not any(os.path.isabs(target) for target in targets)
    html = (folder / "REPORT.html").read_text(encoding="utf-8")
    assert re.findall(r'<img src="(.*?)"', html) == targets


def test_the_page_says_the_same_as_the_text(folder):
    _, text = written(folder)
    html = (folder / "REPORT.html").read_text(encoding="utf-8")
    headings = [re.sub(r"</?code>", "`", inner) for _, inner in re.findall(r"<h([12])>(.*?)</h\1>", html)]
    assert headings == [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    rows = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|:- ")]
    assert html.count("<tr>") == len(rows) and html.startswith("<!doctype html>") and "</html>" in html


def test_two_writings_give_the_same_bytes_and_no_path_of_this_machine(folder, tmp_path):
    (folder / f"{GONE}.json").unlink()
    (folder / "thm-ratio.json").write_text("{")
    pages = []
    for _ in range(2):
        written(folder)
        pages.append([(folder / f"REPORT.{end}").read_bytes() for end in ("md", "html")])
    assert pages[0] == pages[1]
    assert all(str(tmp_path).encode() not in page for page in pages[0])


# ---- verdicts come from the records ------------------------------------------------------------------------------


def test_the_ledger_is_what_claims_say(folder):
    _, text = written(folder)
    found = claims.verdicts({artifact: records.load(folder / f"{artifact}.json") for artifact in ARTIFACTS})
    assert ledger(text) == [[v.claim.id, v.claim.statement, f"**{v.verdict}**", v.reason] for v in found]


def test_another_record_turns_the_verdict(folder):
    assert ledger(written(folder)[1])[4][0] == "C3, alone"
    for low, high, word in ((0.1, 0.3, "supported"), (-0.3, -0.1, "not supported"), (-0.1, 0.1, "inconclusive")):
        record = records.load(folder / f"{GONE}.json")
        for row in claims.select(record, quantity="difference", training="sr"):
            row.update(value=(low + high) / 2, low=low, high=high)
        records.save(record, folder / f"{GONE}.json")
        _, text = written(folder)
        assert ledger(text)[4][2].startswith(f"**{word}")
        assert f"C3, alone: SR is more robust than vanilla training. **{word.capitalize()}" in section(text, GONE)


def test_every_sentence_of_the_ledger_is_the_judges(folder, monkeypatch):
    line = claims.Claim("C0", "Whatever is said.", GONE, lambda record: ("a word of its own", "for a reason."))
    monkeypatch.setattr(claims, "LEDGER", (line,))
    assert ledger(written(folder)[1]) == [["C0", "Whatever is said.", "**a word of its own**", "for a reason."]]


def test_published_numbers_each_come_with_their_source(folder):
    _, text = written(folder)
    own = text.partition("## Published by others\n")[2]
    with (paths.PUBLISHED / "numbers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and "Not measured here" in own
    for row in rows:
        assert not row["value"] or row["source"]
        assert f"| {row['value']} | {row['source']} |" in own
    assert len([line for line in own.splitlines() if line.startswith("|")]) == 2 + len(rows)


# ---- gaps --------------------------------------------------------------------------------------------------------

DAMAGES = {
    "missing": (None, "no such record"),
    "cut off": ("{", "damaged"),
    "of no kind": ("[]", "no record"),
    "not text": (b"\xff\xfe", "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_record_that_cannot_be_read_is_a_marked_gap_and_the_rest_is_there(folder, damage):
    content, words = DAMAGES[damage]
    path = folder / f"{GONE}.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    gaps, text = written(folder)
    assert gaps == [GONE]
    own = section(text, GONE)
    assert own.strip().startswith("**Gap.**") and f"{GONE}.json" in own and words in own
    assert "![" not in own and "Provenance" not in own
    assert text.count("**Gap.**") == 1 and text.count("Provenance:") == len(ARTIFACTS) - 1
    words = {line[0]: line[2] for line in ledger(text)}
    assert words["C3, alone"] == words["C3, with AT"] == "**not measured**"
    assert words["C2, the statement"] == "**supported**"
    assert "<strong>Gap.</strong>" in (folder / "REPORT.html").read_text(encoding="utf-8")


def test_a_failed_notebook_is_named_as_the_reason(folder):
    (folder / f"{GONE}.json").unlink()
    evidence = paths.BUILD / "smoke" / f"{GONE}.failed.ipynb"
    assert "evidence" not in section(written(folder)[1], GONE)
    evidence.parent.mkdir(parents=True)
    evidence.touch()
    assert f"the evidence is `build/smoke/{GONE}.failed.ipynb`" in section(written(folder)[1], GONE)


def test_without_any_record_there_is_a_report_of_gaps(folder):
    for path in folder.glob("*.json"):
        path.unlink()
    gaps, text = written(folder)
    assert gaps == report.artifacts() and text.count("**Gap.**") == len(ARTIFACTS)
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
