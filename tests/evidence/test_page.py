"""`report.html`: the same bytes from the same two files, no node that acts, and readable where people read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from provisioner.evidence import page, words
from tests.evidence import journals
from tests.evidence.bundles import files_of, state
from tests.evidence.journals import STORIES, Tape
from tests.evidence.xss import PAYLOADS

GOLDEN = Path(__file__).parent / "golden"
ALLOWED = {
    "html lang", "head", "meta charset", "meta http-equiv content", "meta name content", "title", "style", "body",
    "p", "p class", "div class", "h1", "h2", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "pre", "span class", "wbr",
    "svg height role aria-label", "text x y", "text class x y", "text class x y text-anchor", "rect class x y width height",
    "line class x1 x2 y1 y2", "circle class cx cy r",
}  # fmt: skip


class Nodes(HTMLParser):
    """Every element with the names of its attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[str] = set()
        self.values: list[str] = []
        self.count = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count += 1
        self.shapes.add(" ".join([tag, *(name for name, _ in attrs)]))
        self.values += [value or "" for _, value in attrs]

    handle_startendtag = handle_starttag


def nodes(html: bytes) -> Nodes:
    made = Nodes()
    made.feed(html.decode())
    made.close()
    return made


def rendered(story: str) -> bytes:
    tape = STORIES[story]()
    return page.page(state(tape), files_of(tape).get("results.json"))


def told(payload: str) -> Tape:
    """A run in which that text stands wherever a model, a machine or a provider can put some."""
    tape = journals.Tape().genesis(profile={"name": payload}, waived=[payload]).launch(region=payload, type=payload).run()
    tape.observe("instance", journals.INST + payload, "here", "running", type=payload, stateReason=payload)
    tape.sweep({"instance": 1}, unchecked={payload: payload})
    tape.add("guard", guard=payload, state="armed")
    return tape.verdict("held").end("failed", {})


def spoilt(payload: str) -> bytes:
    counted = {"right": 1, "scored": 1}
    stats = {payload: {**counted, "tags": {payload: counted}, "absent": {payload: payload}}}
    thresholds = [{"name": payload, "limit": payload, "got": payload, "ok": True}]
    return page.page(state(told(payload)), json.dumps({"scores": [], "stats": stats, "thresholds": thresholds}).encode())


@pytest.mark.parametrize("story", ["normal", "held"])
def test_the_page_of_each_story_is_the_one_kept_in_the_repository(story: str) -> None:
    assert rendered(story) == (GOLDEN / f"{story}.html").read_bytes()


@pytest.mark.parametrize("story", STORIES)
def test_a_page_has_its_tier_first_its_verdict_and_every_limit_and_no_element_that_acts(story: str) -> None:
    made, html = state(STORIES[story]())["predicate"], rendered(story)
    text = re.sub(r"<[^>]*>", "", html.decode())
    assert page.esc(words.first(made)[0], 400) in text and f"verdict {made['verdict']}" in text
    for code in made["limits"]:
        assert page.esc(words.limits.sentence(code), 400) in text
    assert ("SIMULATED" in text) == made["simulated"]
    assert nodes(html).shapes <= ALLOWED, nodes(html).shapes - ALLOWED
    assert len(html) < 64 << 10


def test_the_policy_allows_the_one_style_sheet_by_its_hash_and_nothing_else() -> None:
    html = rendered("normal").decode()
    assert f"default-src &#x27;none&#x27;; style-src &#x27;sha256-{page.HASH}&#x27;" in html
    assert "unsafe" not in html and "http://" not in html and "https://" not in html and "url(" not in html


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_from_a_model_or_a_machine_is_inert(payload: str) -> None:
    hostile, calm = nodes(spoilt(payload)), nodes(spoilt("x"))
    assert hostile.shapes == calm.shapes and hostile.count == calm.count
    assert not [value for value in hostile.values if "javascript:" in value and "alert" not in value]


def browser() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")


@pytest.mark.skipif(browser() is None, reason="there is no Chromium here; the same is asked of an HTML parser above")
def test_a_real_browser_finds_no_active_node_in_any_of_them(tmp_path: Path) -> None:
    """One page of frames, each with a whole report in it; the asking script runs outside of them."""
    import html as escaping

    frames = "".join(f"<iframe srcdoc='{escaping.escape(spoilt(payload).decode())}'></iframe>" for payload in PAYLOADS)
    ask = (
        "<script>onload=()=>{const bad=[];let n=0;for(const f of document.querySelectorAll('iframe')){const d=f.contentDocument;"
        "for(const e of d.querySelectorAll('*')){n++;const a=e.getAttributeNames();"
        "if(['script','iframe','object','embed','a','form','img','image','link','base','animate','set','use','input','button','video','audio',"
        "'foreignobject','template'].includes(e.localName.toLowerCase())||a.some(x=>x.startsWith('on')||x=='href'||x=='src'||x=='style'))"
        "bad.push(e.outerHTML)}}"
        "document.body.innerHTML='<pre id=answer>'+JSON.stringify({frames:document.querySelectorAll('iframe').length,n,bad})"
        ".replace(/</g,'&lt;')+'</pre>'}</script>"
    )
    (tmp_path / "all.html").write_text(f"<!doctype html><meta charset=utf-8>{ask}{frames}", encoding="utf-8")
    command = [str(browser()), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    dom = subprocess.run([*command, f"file://{tmp_path}/all.html"], capture_output=True, text=True, timeout=90, check=True).stdout
    answer: dict[str, Any] = json.loads(escaping.unescape(re.search(r'<pre id="answer">(.*?)</pre>', dom, re.S)[1]))  # type: ignore[index]
    assert answer["frames"] == len(PAYLOADS) and answer["n"] > 60 * 100 and not answer["bad"], answer["bad"][:3]
