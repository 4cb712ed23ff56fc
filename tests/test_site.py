"""The site: every page opens from disk without a network, every link leads somewhere, numbers are those of records."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser
import pytest

from paperlib import paths
from paperlib.artifacts import claims, contents, report

pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install -e .[site]")
PROFILES = ("laptop",)  # those whose records are committed
KINDS = {  # a page of each kind
    "landing": "index.html",
    "notebook": "notebooks/tab-ablation.html",
    "theorem": "notebooks/thm-ratio.html",
    "trainings": "trainings.html",
    "numbers": "numbers.html",
    "gallery": "gallery.html",
    "record": "results/laptop/fig-attack-ladder.html",
    "report": "results/laptop/index.html",
    "api": "api/attacks.html",
    "glossary": "glossary.html",
    "how to": "howto/profiles.html",
    "benchmarks": "benchmarks.html",
}
LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("object", "data")}


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """The site that the variable COMPANION_SITE names, or one that is built once for all tests and their processes."""
    if given := os.environ.get("COMPANION_SITE"):
        return Path(given).resolve()
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    try:
        folder.mkdir()
    except FileExistsError:  # another process builds it
        while not (folder / "complete").exists():
            assert not (folder / "failed").exists(), "another process could not build the site"
            time.sleep(1)
        return folder / "site"
    command = "import sys; from pathlib import Path; from paperlib import paths; paths.BUILD = Path(sys.argv[1])"
    command += f"; from paperlib import site; site.build({list(PROFILES)!r})"
    done = subprocess.run([sys.executable, "-c", command, folder], cwd=paths.ROOT, capture_output=True, text=True)
    (folder / ("failed" if done.returncode else "complete")).touch()
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture(scope="module")
def driver() -> Iterator:
    if reason := browser.missing():
        pytest.skip(reason)
    with browser.chromium(width=1280) as opened:
        opened.set_script_timeout(300)  # axe-core takes long on large pages where the processor is shared
        yield opened


@pytest.fixture(scope="module")
def telephone() -> Iterator:
    if reason := browser.missing():
        pytest.skip(reason)
    with browser.chromium(width=390) as opened:
        yield opened


class Page(HTMLParser):
    """The links, anchors, loaded files and images of a page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors, self.loaded, self.images, self.text = [], set(), [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img":
            self.images.append(given)
        self.loaded += [value for name, value in attributes if (tag, name) in LOADED and value]

    def handle_data(self, data):
        self.text.append(data)


def dead(folder: Path) -> list[str]:
    """Every link and every loaded file in a folder of pages that leads to no file, or to no anchor of its page."""
    files = (path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts)  # the theme's templates
    pages = {path: Page(path) for path in files}
    found = []
    for path, page in pages.items():
        for target in page.links + page.loaded:
            parts = urlsplit(target)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[there].anchors if there in pages else set()
            if not there.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                found.append(f"{path.relative_to(folder)}: {target}")
    return found


# ---- pages and links ---------------------------------------------------------------------------------------------


def test_every_page_is_there(site):
    there = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    wanted = {f"notebooks/{path.stem}.html" for path in paths.NOTEBOOKS.glob("*.ipynb")} | set(KINDS.values())
    wanted |= {f"results/{profile}/{name}.html" for profile in PROFILES for name in report.reading_order()}
    packages = ("attacks", "certificates", "data", "networks", "theory", "training")
    wanted |= {f"api/{name}.html" for name in ("index", *packages)}
    assert wanted <= there and not wanted & {name for name in there if (site / name).stat().st_size < 5000}


def test_no_link_and_no_anchor_is_dead(site):
    assert dead(site) == []


@pytest.mark.parametrize("link", ["nowhere.html", "other.html#nowhere", "#nowhere", "/index.html", "pictures/gone.png"])
def test_a_planted_dead_link_is_found(tmp_path, link):
    tag = f'<img src="{link}" alt="">' if link.endswith("png") else f'<a href="{link}">planted</a>'
    (tmp_path / "index.html").write_text(
        f'<p id="here"><a href="other.html#there">good</a> <a href="#here">good</a>{tag}'
    )
    (tmp_path / "other.html").write_text('<p id="there">')
    assert dead(tmp_path) == [f"index.html: {link}"]


def test_nothing_is_loaded_from_outside(site):
    """Neither by pages nor by their styles."""
    outside = re.compile(r"^(https?:)?//")
    for path in site.rglob("*.html"):
        assert [target for target in Page(path).loaded if outside.match(target)] == [], path
    for path in site.rglob("*.css"):
        addresses = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", path.read_text(encoding="utf-8"))
        assert not [found for pair in addresses for found in pair if outside.match(found)], path


def test_notebooks_follow_each_other_in_reading_order(site):
    names = contents.order(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))
    for name, following in zip(names, names[1:], strict=False):
        html = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
        (target,) = re.findall(r'class="right-next"\s+href="([^"]+)"', html)
        assert target == f"{following}.html"


def test_every_picture_has_a_text_that_is_no_file_name_and_figures_have_their_headlines(site):
    for path in site.rglob("*.html"):
        for image in Page(path).images:
            text = image.get("alt") or ""
            assert len(text.split()) >= 3 and not re.search(r"\.(png|svg)\b", text), (path, image)
    own = {image["alt"] for image in Page(site / "notebooks" / "tab-ablation.html").images}
    assert (
        own == {image["alt"] for image in Page(site / "results" / "laptop" / "tab-ablation.html").images}
        and len(own) == 3
    )


# ---- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", range(len(PROFILES)))
def test_verdicts_and_numbers_of_the_cards_are_those_of_the_records(site, column):
    """The numbers are taken from the rows of the JSON files that the cards link."""
    html = (site / "index.html").read_text(encoding="utf-8")
    profile = PROFILES[column]
    cards = dict(re.findall(r'<section class="verdicts" id="([^"]+)">(.*?)</section>', html, flags=re.DOTALL))
    assert len(cards) == len(claims.LEDGER) == 18
    panel = cards["c3-alone"].split('<div class="panel ')[1 + column]
    rows = json.loads((site / "results" / profile / "fig-attack-ladder.json").read_text(encoding="utf-8"))["rows"]
    wanted = {"quantity": "difference", "training": "sr", "against": "vanilla"}
    worst, clean = (
        next(row for row in rows if row.get("attack") == attack and wanted.items() <= row.items())
        for attack in ("worst", "clean")
    )
    if worst["low"] is None:
        assert "inconclusive" in panel
    else:
        holds = "supported" if worst["low"] > 0 else "not supported" if worst["high"] < 0 else "inconclusive"
        assert f"</span> {holds}" in panel
        assert f"{100 * worst['value']:+.1f} points [{100 * worst['low']:+.1f}, {100 * worst['high']:+.1f}]" in panel
    assert f"{100 * clean['value']:+.1f} points" in panel
    assert f'href="results/{profile}/fig-attack-ladder.json"' in panel


def test_the_number_to_quote_is_the_worst_case_of_the_ladder_and_readings_are_of_its_networks(site):
    text = "".join(Page(site / "numbers.html").text)
    rows = json.loads((site / "results/laptop/fig-attack-ladder.json").read_text(encoding="utf-8"))["rows"]
    means = [row for row in rows if row["quantity"] == "mean accuracy" and row["attack"] == "worst"]
    assert {row["training"] for row in means} == {"vanilla", "sr", "at", "at+sr"}
    for row in means:
        assert f"{100 * row['value']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" in text
    html = (site / "numbers.html").read_text(encoding="utf-8")
    radii = len({row["eps_255"] for row in means})
    assert html.count("as robust accuracy") == 4 * radii * len(PROFILES)
    assert html.count("as clean accuracy") == 4 * len(PROFILES)
    sr = re.search(r"<caption><span>Every accuracy of SR, .*?</table>", html, flags=re.DOTALL)[0]
    assert "fig-sr-variants.html" not in sr and "tab-ablation.html" in sr  # networks of three epochs are others


@pytest.mark.parametrize("name", PROFILES)
def test_how_it_was_computed_names_what_the_record_names(site, name):
    text = "".join(Page(site / "results" / name / "tab-cost.html").text)
    given = json.loads((site / "results" / name / "tab-cost.json").read_text(encoding="utf-8"))["provenance"]
    for value in (
        given["code"][:12],
        given["arithmetic"],
        given["data"]["title"],
        f"torch {given['packages']['torch']}",
    ):
        assert value in text
    assert "How it was computed" in text and f"samples = {given['parameters']['strong_samples']}" in text


def test_a_profile_without_records_says_what_to_run(tmp_path, monkeypatch):
    from paperlib.site import sources

    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    sources.write(tmp_path / "sources", ["paper"])
    sentence = "Profile paper has no records yet: run `make reproduce PROFILE=paper`, then `make site PROFILE=paper`."
    for page in (
        "results/paper/index.md",
        "_parts/missing.md",
        "_parts/league.md",
        "_parts/quoting.md",
        "_parts/gallery.md",
    ):
        assert sentence in (tmp_path / "sources" / page).read_text(encoding="utf-8")
    board = (tmp_path / "sources" / "_parts" / "board.md").read_text(encoding="utf-8")
    assert board.count('<span class="chip gap">') == len(claims.PAPER)


# ---- in a browser ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_opens_from_disk_without_an_error(site, driver, kind):
    browser.console_errors(driver)
    driver.get((site / KINDS[kind]).as_uri())
    assert driver.title and browser.console_errors(driver) == []
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in loaded if not name.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_fits_a_telephone(site, telephone, kind):
    telephone.get((site / KINDS[kind]).as_uri())
    assert browser.scrolls_sideways(telephone) == 0


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("kind", ["landing", "notebook", "trainings", "numbers", "record", "report", "api", "glossary"])
def test_axe_finds_nothing_serious(site, driver, kind, dark):
    driver.get((site / KINDS[kind]).as_uri())
    at_once = "const style = document.createElement('style'); style.textContent = '* { transition: none !important; }';"
    driver.execute_script(at_once + "document.head.append(style);")  # else axe may see a colour on its way
    driver.execute_script(f"document.documentElement.dataset.theme = '{'dark' if dark else 'light'}'")
    assert browser.axe(driver) == []


def test_a_column_is_sorted_by_its_button_and_says_so(site, driver):
    driver.get((site / "trainings.html").as_uri())
    table = driver.find_element("css selector", "table.sortable")

    def column(index):
        cells = table.find_elements("css selector", f"tbody tr > :nth-child({index})")
        return [cell.get_attribute("data-value") or cell.text for cell in cells]

    heads = table.find_elements("css selector", "thead th")
    assert heads[-1].get_attribute("aria-sort") == "descending"
    worst = [float(value) for value in column(len(heads))]
    assert worst == sorted(worst, reverse=True) and len(worst) == 11
    button = heads[1].find_element("tag name", "button")  # passes: 10 must come after 35 and not before 2
    button.click()
    passes = [float(value) for value in column(2)]
    assert heads[1].get_attribute("aria-sort") == "descending" and heads[-1].get_attribute("aria-sort") is None
    assert passes == sorted(passes, reverse=True) and len(set(passes)) > 3
    button.click()
    assert heads[1].get_attribute("aria-sort") == "ascending" and [float(v) for v in column(2)] == sorted(passes)
    heads[0].find_element("tag name", "button").click()
    names = column(1)
    assert sorted(names, key=str.lower, reverse=True) == names and sorted(worst) == sorted(
        map(float, column(len(heads)))
    )


def test_search_finds_a_word_without_a_server(site, driver):
    driver.get((site / "search.html").as_uri() + "?q=masked")
    for _ in range(50):
        if found := driver.find_elements("css selector", "#search-results a[href*='tab-masking-checklist']"):
            break
        time.sleep(0.2)
    assert found


def test_the_first_screen_shows_every_claim_with_its_verdicts(site, driver):
    driver.get((site / "index.html").as_uri())
    for row in driver.find_elements("css selector", "table.board tbody tr"):
        assert row.rect["y"] + row.rect["height"] <= browser.HEIGHT
        assert len(row.find_elements("css selector", ".chip")) >= len(PROFILES)


def test_it_works_from_a_folder_of_a_web_server(site, tmp_path):
    """All links are relative: a copy under another path has no dead one."""
    shutil.copytree(site, tmp_path / "deep" / "er")
    assert dead(tmp_path) == []
