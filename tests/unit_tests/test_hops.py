"""Further hops: the sentence that leads on from one to the next, and what is kept."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import make_backend, text_of

from xl3m_integrations import XL3M, SettingError
from xl3m_integrations.bundled import words
from xl3m_integrations.certainty import SentenceLook, margin
from xl3m_integrations.segmentation import sentences
from xl3m_integrations.types import Segment

ALL = 10**6
rows = st.lists(st.lists(st.floats(-20, 0), min_size=3, max_size=3), min_size=2, max_size=8)


@pytest.fixture(scope="module")
def xl3m() -> XL3M:
    return XL3M(*[make_backend("llama")] * 2, segment_tokens=32)


@settings(deadline=None)
@given(rows=rows, cap=st.floats(0.1, 10), few=st.integers(1, 9))
def test_margin_is_how_far_each_token_is_ahead_of_all_but_a_few_capped(rows, cap, few):
    others = [sorted(column, reverse=True)[:few][-1] for column in zip(*rows, strict=True)]
    leads = [[min(cap, max(0.0, own - other)) for own, other in zip(row, others, strict=True)] for row in rows]
    expected = [sum(row) for row in leads]
    assert margin(torch.tensor(rows, dtype=torch.float64), cap, few).tolist() == pytest.approx(expected)


def test_a_second_hop_asks_with_the_sentence_that_explains_what_few_do(xl3m: XL3M):
    text, question = text_of(3_000, seed=5), "What is it?"
    once, twice = (xl3m.select(text, question, top_k=ALL, hops=hops) for hops in (1, 2))
    likeliest = sorted(once.segments, key=lambda segment: (-segment.evidence["gain"], segment.index))[:32]
    own = {}
    for segment in likeliest:
        for start, end in sentences(text[segment.start : segment.end + 200]):
            if start < segment.end - segment.start:
                own.setdefault(text[segment.start + start : segment.start + end], segment.index)
    tokenizer = xl3m.scorer.tokenizer
    asked = [Segment(number, 0, len(one), one, tokenizer.ids(one)) for number, one in enumerate(own)]
    seen = [evidence[1:] for _, evidence in xl3m.scorer.evidence(asked, question, SentenceLook())]

    fifth = [sorted(column, reverse=True)[:5][-1] for column in zip(*seen, strict=True)]

    def ahead(row: tuple[float, ...]) -> float:
        return sum(min(8.0, max(0.0, own - other)) for own, other in zip(row, fifth, strict=True))

    bridge = max(asked, key=lambda one: ahead(seen[one.index])).text
    assert (once.lead, twice.lead) == ("", f"{bridge} ")
    again = xl3m.select(text, twice.lead + question, top_k=ALL)
    raised = [index for index in range(len(again.scores)) if twice.scores[index] != again.scores[index]]
    best = max(again.scores)
    assert {twice.scores[index] for index in raised} <= {best} and len(raised) <= 2
    assert twice.scores[own[bridge]] == best


@pytest.mark.parametrize(("first_names", "last_names"), [(12, 12), (4, 3)])
def test_both_statements_of_a_chain_are_kept(first_names: int, last_names: int):
    """Who keeps a thing, and where that person lives, each among twelve of its kind, which may share names."""
    seed = random.randrange(10**6)
    rng, xl3m = random.Random(seed), XL3M.default()
    right = 0
    for _ in range(8):
        firsts, lasts = rng.sample(words.FIRST_NAMES, first_names), rng.sample(words.LAST_NAMES, last_names)
        names = rng.sample([f"{first} {last}" for first in firsts for last in lasts], 12)
        things, cities = rng.sample(words.THINGS, 12), rng.sample(words.CITIES, 12)
        told = [f"{who} keeps the wise {thing}." for who, thing in zip(names, things, strict=True)]
        told += [f"{who} lives in {city}." for who, city in zip(names, cities, strict=True)]
        first, second = told[0], told[12]
        rng.shuffle(told)
        filler = "The grey harbor was quiet. The gulls went on about their day. " * 3
        text = filler + f" {filler}".join(told)
        found = xl3m.select(text, f"In which city does the keeper of the wise {things[0]} live?", hops=2, top_k=4)
        kept = " ".join(segment.text for segment in found.segments)
        right += found.lead == f"{first} " and first in kept and second in kept
    assert right >= 6, f"{right} of 8, seed {seed}"


@pytest.mark.parametrize("words_shared", [False, True])
def test_a_sentence_leads_on_by_its_words_where_another_has_them(xl3m: XL3M, words_shared: bool):
    """Where none has, as in scripts without spaces, by how its words are explained, like those of the question."""
    question, tokenizer = "What is it?", xl3m.scorer.tokenizer
    by_all, by_question = [], []
    for seed in range(12):
        letters = random.Random(seed).sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 26)
        lines = [f"{a * 3}{n} {a * 4}{n}" for n, a in enumerate(letters)]
        first = xl3m.select("\n".join(lines), question, top_k=ALL, hops=2).lead
        if words_shared:  # the same word, said of something else
            lines.append(f"{first.split()[0]} {seed}")
        text = "\n".join(lines)
        lead = xl3m.select(text, question, top_k=ALL, hops=3).lead
        if not lead.startswith(first):
            continue  # the new line comes first
        rest = [line for line in lines if line != first.strip()]
        asked = [Segment(number, 0, len(one), one, tokenizer.ids(one)) for number, one in enumerate(rest)]
        seen = [evidence[1:] for _, evidence in xl3m.scorer.evidence(asked, first + question, SentenceLook())]
        fifth = [sorted(column, reverse=True)[:5][-1] for column in zip(*seen, strict=True)]
        ahead = [[min(8.0, max(0.0, own - o)) for own, o in zip(row, fifth, strict=True)] for row in seen]
        told = xl3m.scorer.overhead(first + question) - xl3m.scorer.overhead(question)
        segments = [segment.text.split() for segment in xl3m.select(text, question, top_k=ALL).segments]
        having = sum(first.split()[0] in own for own in segments)
        nats = [0.0] * 25 + [math.log(len(segments) / having)] * words_shared
        for found, start in ((by_all, 0), (by_question, told)):
            values = [sum(row[start:]) + own for row, own in zip(ahead, nats, strict=True)]
            found.append(lead == f"{first}{rest[values.index(max(values))]} ")
    assert len(by_all) >= 6
    assert all(by_question if words_shared else by_all)
    assert not all(by_all if words_shared else by_question)  # the two rules differ on these texts


def test_every_hop_of_a_chain_of_variables_is_kept():
    names = ["QWXRT", "BDFGH", "ZZKLM"]
    lines = [f"VAR {names[0]} = 48213", f"VAR {names[1]} = VAR {names[0]}", f"VAR {names[2]} = VAR {names[1]}"]
    noise = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. " * 12
    text = "\n".join([noise, lines[2], noise, lines[0], noise, lines[1], noise])
    found = XL3M.default().select(text, "Find all variables that are assigned the value 48213.", hops=3, top_k=4)
    assert found.lead == f"{lines[0]} {lines[1]} "
    assert all(any(line in segment.text for segment in found.segments) for line in lines)


@pytest.mark.parametrize("measure", ["entropy", "question_likelihood", "answer_entropy"])
def test_every_measure_leads_on_with_a_sentence_of_the_text(xl3m: XL3M, measure: str):
    text = text_of(3_000, seed=8)
    found = xl3m.select(text, "What is it?", measure=measure, hops=2, top_k=3)
    assert found.lead.endswith(" ") and found.lead[:-1] in text
    assert len(found.segments) == 3


def test_a_streamed_document_is_read_again_for_the_second_hop(xl3m: XL3M):
    text = text_of(3_000, seed=6)
    pieces = (text[at : at + 70] for at in range(0, len(text), 70))
    streamed, whole = (xl3m.select(source, "What is it?", top_k=4, hops=2) for source in (pieces, text))
    assert streamed.scores == whole.scores
    assert [segment.text for segment in streamed.segments] == [segment.text for segment in whole.segments]


def test_a_text_of_one_sentence_leads_on_with_it(xl3m: XL3M):
    found = xl3m.select("The code is 7.", "What is it?", hops=3, top_k=1)
    assert found.lead == "The code is 7. The code is 7. "


@pytest.mark.parametrize("hops", [1, 2])
def test_no_documents_give_no_selections(xl3m: XL3M, hops: int):
    assert xl3m.select_documents([], "What is it?", hops=hops) == []


@pytest.mark.parametrize("hops", [0, -1, 1.5])
def test_hops_must_be_a_whole_number(xl3m: XL3M, hops):
    with pytest.raises(SettingError, match="hops"):
        xl3m.select("some text", "What?", hops=hops)


@pytest.mark.parametrize("measure", ["blend", "entropy", "answer_entropy"])
def test_a_text_without_sentences_ends_the_hops_with_a_warning(xl3m: XL3M, measure: str):
    digits = "".join(random.Random(1).choices("0123456789", k=6_000))
    with pytest.warns(UserWarning, match="No sentence that could lead to hop"):
        found = xl3m.select(digits, "Which?", hops=4, top_k=2, measure=measure)
    assert [segment.text for segment in found.segments] == [digits[s.start : s.end] for s in found.segments]
    assert len(found.segments) == 2
