"""The page as text: what it holds, that nothing of a document becomes code, and how large it gets."""

from __future__ import annotations

import base64
import builtins
import json
import random
import re
import sys
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xl3m_integrations import Answer, KeyContext, MissingExtraError, Selection
from xl3m_integrations.report.page import AROUND, SHOWN_CHARACTERS, render

HOSTILE = [
    "<script>alert(1)</script>", "</script>", "</style>", "<!--", "-->", "]]>", '"', "'", "&", "&lt;", "&#x27;", "`",
    "</p><img src=x onerror=alert(1)>", "{{ 7 * 7 }}", "{% raw %}", "${x}", "\u2028", "\u2029", "\u202e", "\\u003c",
    "javascript:alert(1)", "<iframe srcdoc='", "é", "👩‍👩‍👧", "\x00", "\x1b[31m",
]  # fmt: skip
hostile_text = st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8)), max_size=40).map("".join)


class Read(HTMLParser):
    """What a reader finds in a page: its elements, and the text of each class of element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            name = dict(attrs).get("class") or dict(attrs).get("id") or tag
            self._open.append(name)
            self.texts.setdefault(name, "")

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for name in set(self._open):
            self.texts[name] += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    @property
    def figures(self) -> dict[str, Any]:
        return json.loads(zlib.decompress(base64.b64decode(self.texts["figures"])))


def endless(text: str):
    """A document that repeats `text`."""
    return lambda start, end: (text * ((end - start) // len(text) + 2))[start % len(text) :][: end - start]


PLAIN = endless("It rained again, and the ferry left on time. Edith keeps the brass lantern. ")


def answered(selection: Selection, text: str) -> Answer:
    return Answer(text, selection.question, selection.key_context, 321, selection)


def test_a_page_shows_question_answer_passages_figures_and_settings(make_selection):
    selection = make_selection(40, 2, PLAIN)
    read = Read(answered(selection, "Edith").to_html())
    assert read.texts["h1"] == selection.question
    assert read.texts["said"] == "Edith"
    assert read.count("article") == len(selection.key_context.spans)
    text = read.texts["main"]
    for (start, end), segment in zip(selection.key_context.spans, selection.segments, strict=True):
        assert f"characters {start:,} to {end:,}" in text
        assert f"{segment.score:.3f}" in text
    for figure in (f"{selection.characters:,} characters", "40", "1.2 s", "321 tokens", "Segment tokens", "none"):
        assert figure in text


def test_passages_are_verbatim_and_the_answer_is_marked_where_it_stands(make_selection):
    selection = make_selection(40, 3, PLAIN)
    read = Read(answered(selection, "edith.").to_html())
    kept = [PLAIN(start, end) for start, end in selection.key_context.spans]
    assert read.texts["kept"] == "".join(kept)
    assert read.texts["mark"] == "Edith" * sum(text.count("Edith") for text in kept)
    around = [f"…{PLAIN(max(0, start - AROUND), start)}{PLAIN(end, end + AROUND)}…" for start, end in
              selection.key_context.spans]  # fmt: skip
    assert read.texts["around"] == "".join(around)


def test_an_answer_inside_a_word_is_not_marked(make_selection):
    selection = make_selection(10, 10, endless("17 of 1748 "))
    read = Read(answered(selection, "17").to_html())
    assert read.texts["mark"] == "17" * read.texts["kept"].split().count("17")


def test_sources_name_the_passages(make_selection):
    selection = make_selection(10, 10, PLAIN)
    middle = selection.characters // 2
    sources = [("a <b>.txt", 0, middle), ("c.txt", middle + 2, selection.characters)]
    text = Read(selection.to_html(sources)).texts["main"]
    assert f"a <b>.txt, characters 0 to {middle:,}" in text
    assert f"c.txt, characters 0 to {selection.characters - middle - 2:,}" in text


def test_a_text_that_was_read_whole_has_a_page_without_a_map():
    context = KeyContext("All of <it>.", ((0, 12),))
    read = Read(Answer("it", "What?", context).to_html())
    assert read.texts["kept"] == context.text
    assert read.texts["mark"] == "it"
    assert read.count("canvas") == 0
    assert "read whole" in read.texts["main"]


def test_a_document_of_which_nothing_was_kept_has_a_page(make_selection):
    selection = replace(make_selection(5, 1, PLAIN), segments=(), key_context=KeyContext("", ()))
    read = Read(selection.to_html())
    assert read.count("canvas") == 2
    assert "Nothing of this document was kept." in read.texts["main"]


def test_what_did_not_fit_the_reader_is_said(make_selection):
    selection = make_selection(30, 3, PLAIN)
    kept, left = selection.segments[:2], selection.segments[2:]
    spans = tuple((segment.start, segment.end) for segment in kept)
    context = KeyContext("…", spans, kept, left)
    read = Read(Answer("Edith", "Who?", context, 9, selection).to_html())
    assert "1 kept segment did not fit" in " ".join(read.texts["main"].split())
    assert read.figures["kept"] == {**{str(s.index): 1 for s in kept}, str(left[0].index): 2}


# ---------------------------------------------------------------------------------------------- harmless
@settings(max_examples=60)
@given(document=hostile_text, question=hostile_text, answer=hostile_text, name=hostile_text)
def test_nothing_of_a_document_becomes_part_of_the_page(make_selection, document, question, answer, name):
    plain = make_selection(12, 3, PLAIN)
    selection = replace(make_selection(12, 3, endless(document + " .")), question=question, settings={name: name})
    shape = Read(answered(replace(plain, settings={"": ""}), "").to_html([("", 0, 999)]))
    read = Read(answered(selection, answer).to_html([(name, 0, 999)]))
    same = [(tag, attributes.keys()) for tag, attributes in shape.elements if tag != "mark"]
    assert [(tag, attributes.keys()) for tag, attributes in read.elements if tag != "mark"] == same
    assert read.texts["h1"] == question
    assert read.texts["kept"] == "".join(segment.text for segment in _merged(selection))
    excerpts = read.figures["text"]
    assert all(text == selection.table.cut(45 * int(row), 45 * int(row) + 60) for row, text in excerpts.items())


def _merged(selection: Selection) -> list[Any]:
    """The passages' texts, as single segments, for selections whose spans may be merged."""
    return [type("Span", (), {"text": selection.table.cut(*span)}) for span in selection.key_context.spans]


@given(document=hostile_text)
@settings(max_examples=30)
def test_a_notebook_shows_the_page_in_a_frame_of_its_own(make_selection, document):
    selection = make_selection(6, 2, endless(document + " ."))
    read = Read(selection._repr_html_())
    [(tag, attributes)] = read.elements
    assert tag == "iframe"
    assert attributes["sandbox"] == "allow-scripts"
    assert attributes["srcdoc"] == selection.to_html()


def test_the_page_may_run_its_own_script_only_and_load_nothing(make_selection):
    page = make_selection(6, 2, PLAIN).to_html()
    read = Read(page)
    [policy] = [a["content"] for _, a in read.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not re.search(r"(src|href|url|action)\s*[=(]\s*[\"']?(?!data:,)(https?:|//|[\w/])", page)
    assert not any(name.startswith("on") or name == "style" for _, attrs in read.elements for name in attrs)


# ---------------------------------------------------------------------------------------------- size
@pytest.mark.slow
def test_two_hundred_thousand_segments_of_noise_stay_below_five_megabytes(make_selection):
    rng = random.Random(1)
    noise = "".join(map(chr, rng.choices(range(0x4E00, 0x9FFF), k=999_983)))  # three bytes each, incompressible
    assert len(make_selection(200_000, 8, endless(noise)).to_html().encode()) < 5_000_000


def test_a_very_long_key_context_is_shown_in_part_and_says_so(make_selection):
    selection = make_selection(9_000, 9_000, PLAIN)
    page = selection.to_html()
    assert len(page.encode()) < 2_000_000
    read = Read(page)
    hidden = selection.characters - SHOWN_CHARACTERS
    assert hidden > 0
    assert f"{hidden:,} more characters, not shown on this page" in read.texts["hidden"]
    assert len(read.texts["kept"]) == SHOWN_CHARACTERS


def test_passages_beyond_the_limit_are_counted(make_selection):
    selection = make_selection(4_000, 300, PLAIN)
    read = Read(selection.to_html())
    shown = read.count("article")
    assert 0 < shown < len(selection.key_context.spans)
    assert f"{len(selection.key_context.spans) - shown} more passages were kept" in read.texts["main"]
    best = min(selection.segments, key=lambda segment: segment.rank)
    assert best.text in read.texts["kept"]


# ---------------------------------------------------------------------------------------------- the extra
@pytest.mark.parametrize(("missing", "ask"), [("jinja2", "to_html"), ("matplotlib", "plot")])
def test_a_missing_extra_is_named(make_selection, monkeypatch, missing, ask):
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == missing:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "xl3m_integrations.report.page", raising=False)
    monkeypatch.delitem(sys.modules, "xl3m_integrations.report.plot", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    selection = make_selection(5, 1, PLAIN)
    with pytest.raises(MissingExtraError, match=r'pip install "xl3m-integrations\[report\]"'):
        getattr(selection, ask)()
    if missing == "jinja2":
        assert selection._repr_html_() is None  # a notebook then shows the plain repr


def test_rendering_is_a_function_of_the_selection(make_selection):
    selection = make_selection(20, 3, PLAIN)
    assert render(selection) == selection.to_html() == selection.to_html()
