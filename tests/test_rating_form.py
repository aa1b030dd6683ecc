"""The form of a rater: what it shows, and that it gives back the sheet."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rating_support import make, rows_of

from uncollapse.rating.key import read_key
from uncollapse.rating.sheet import read_sheet


class Page(HTMLParser):
    """Elements that were opened and closed, their attributes, and the text of each item."""

    VOID = frozenset({"meta", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._item: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "article":
            self._item = dict(attrs)["id"]
            self.texts[str(self._item)] = ""
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "article":
            self._item = None

    def handle_data(self, data: str) -> None:
        if self._item is not None:
            self.texts[self._item] += data


def parse(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


@pytest.mark.parametrize("scale", [3, 10])
def test_form_shows_what_the_sheet_has(tmp_path: Path, scale: int) -> None:
    study = make(tmp_path / "study", scale=scale, criteria=["relevance", "consistency"])
    page = parse(study / "rater-2.html")
    _, *rows = rows_of(study / "rater-2.csv")
    assert list(page.texts) == [row[0] for row in rows]
    key = read_key(study)
    for name, text in page.texts.items():
        item = key.items[key.sheets[1][name]]
        assert all(response in text for response in item.responses)
        if item.kind == "response":
            assert all(turn.text in text for turn in key.contexts[item.unit].turns)
    radios = [attrs for tag, attrs in page.elements if tag == "input"]
    assert {attrs["type"] for attrs in radios} == {"radio"}
    assert len(radios) == len(rows) * scale
    assert [attrs["value"] for attrs in radios[:scale]] == [str(n + 1) for n in range(scale)]
    tags = [tag for tag, _ in page.elements]
    assert tags.count("fieldset") == tags.count("legend") == len(rows)
    assert not {"b>no", "img", "link", "iframe", "a"} & set(tags)
    assert not any("src" in attrs or "href" in attrs for _, attrs in page.elements)
    policy = next(attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs)
    assert str(policy).startswith("default-src 'none'")


ANSWER_EVERYTHING = """
<script>
localStorage.clear();
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
let saved = null;
URL.createObjectURL = (blob) => { saved = blob; return "blob:none"; };
HTMLAnchorElement.prototype.click = function () { document.title = this.download; };
const left = document.getElementById("left");
const before = left.textContent;
for (let turn = 0; turn < 200 && left.textContent.includes("left"); turn += 1) {
  const item = document.querySelector("article:not([hidden])");
  for (const _ of item.querySelectorAll("fieldset")) press(String(1 + turn % 3));
  press("n");
}
press("s");
const kept = JSON.parse(Object.values(localStorage)[0]);
saved.text().then((text) => {
  const out = document.createElement("pre");
  out.id = "out";
  const answers = Object.keys(kept.answers).length;
  out.textContent = JSON.stringify([before, left.textContent, answers, text]);
  document.body.append(out);
});
</script></body>"""


@pytest.mark.slow
def test_form_saves_the_sheet(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium to fill in a form with")
    study = make(tmp_path / "study", criteria=["fluency", "relevance", "consistency"], actions=3)
    text = (study / "rater-1.html").read_text(encoding="utf-8")
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)  # it lets no other script run
    driven = tmp_path / "driven.html"
    driven.write_text(text.replace("</body>", ANSWER_EVERYTHING), encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    how = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", profile]
    run = subprocess.run(
        [browser, *how, "--dump-dom", driven.as_uri()],
        capture_output=True,
        timeout=120,
        check=False,
    )
    found = re.search(r'<pre id="out">(.*?)</pre>', run.stdout.decode(), re.DOTALL)
    assert found is not None
    before, after, kept, saved = json.loads(unescape(found[1]))
    assert (before, after) == ("18 of 18 items left", "all items are rated: save the sheet")
    assert kept == 12 * 2 + 6
    assert "<title>rater-1.csv</title>" in run.stdout.decode()
    # but for the ratings, every character is that of the sheet
    sheet = (study / "rater-1.csv").read_text(encoding="utf-8")
    assert re.sub(r",(\d,\d,-|-,-,\d)\n", blank, saved) == sheet
    path = tmp_path / "saved.csv"
    path.write_text(saved, encoding="utf-8", newline="")
    key = read_key(study)
    rated = read_sheet(path, key)
    order = list(key.sheets[0].values())
    given = [{r for r in rated.ratings[number] if r is not None} for number in order]
    assert given == [{1 + turn % 3} for turn in range(18)]


def blank(match: re.Match[str]) -> str:
    return re.sub(r"\d", "", match[0])
