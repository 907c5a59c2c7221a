"""The corpus: every question has one answer, and it stands in the document."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from xl3m_integrations.bundled import corpus, probes
from xl3m_integrations.bundled.corpus.hops import linked_fact

MAKERS = [*corpus.FAMILIES, corpus.hop_fact, corpus.told_fact, probes.probe_fact]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_the_value_stands_where_the_fact_says_and_not_in_the_questions(maker: corpus.Maker) -> None:
    rng = random.Random(1)
    for _ in range(200):
        fact = maker(rng)
        assert fact.statement[fact.value_at : fact.value_at + len(fact.value)] == fact.value
        assert fact.value and fact.questions
        assert "{" not in fact.question or "{" in fact.statement


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_a_look_alike_is_another_fact(maker: corpus.Maker) -> None:
    rng = random.Random(2)
    pairs = [(fact, fact.like(rng)) for fact in (maker(rng) for _ in range(200))]
    different = [fact.identity != other.identity for fact, other in pairs]
    assert sum(different) >= 170  # the few others are thrown out by `unambiguous`


def test_two_statements_name_one_person_and_look_alikes_are_worded_alike() -> None:
    """The question names the person by the link alone, unless it tells the link itself."""
    rng = random.Random(7)
    worded_alike = 0
    for _ in range(200):
        fact = linked_fact(rng)
        other = fact.like(rng)
        (link, who), (_, another) = (_link_and_person(each) for each in (fact, other))
        assert who in link and not any(who in question for question in fact.questions)
        same = fact.statement.replace(who, "").replace(fact.value, "")
        worded_alike += who != another and same == other.statement.replace(another, "").replace(other.value, "")
    assert worded_alike > 120


def _link_and_person(fact: corpus.Fact) -> tuple[str, str]:
    """The statement without the value, and the two neighbouring words that both statements have."""
    (link,) = (part for part in fact.parts if part != fact.statement)
    words = re.findall(r"\w+", link)
    pairs = [f"{one} {two}" for one, two in itertools.pairwise(words)]
    return link, next(pair for pair in pairs if pair in fact.statement and pair.istitle())


def test_no_two_facts_of_a_document_share_an_identity() -> None:
    rng = random.Random(3)
    facts = corpus.unambiguous(rng, [corpus.any_fact(rng)], 40)
    assert len(facts) == 41
    assert len({(fact.family, fact.identity) for fact in facts}) == 41


def test_weaving_notes_where_each_statement_stands() -> None:
    rng = random.Random(4)
    for _ in range(50):
        facts = corpus.unambiguous(rng, [], 6)
        text, planted = corpus.weave(rng, corpus.filler(rng, 400), facts)
        assert len(planted) == 6
        for one in planted:
            assert text[one.start : one.end] == one.fact.statement


def test_a_streamed_document_holds_each_needle_once_near_its_depth() -> None:
    rng = random.Random(5)
    facts = [corpus.register_fact(rng), corpus.magic_fact(rng), corpus.event_fact(rng)]
    depths = [0.0, 0.5, 1.0]
    text = "".join(corpus.stream_document(rng, list(zip(depths, facts, strict=True)), 60_000))
    for depth, fact in zip(depths, facts, strict=True):
        assert text.count(fact.statement) == 1
        assert abs(text.index(fact.statement) / len(text) - depth) < 0.03


def test_a_seed_fixes_the_text() -> None:
    def text(seed: int) -> str:
        rng = random.Random(seed)
        return "".join(corpus.stream_document(rng, [(0.5, corpus.any_fact(rng))], 5_000))

    assert text(7) == text(7) != text(8)


def test_prose_passages_come_from_the_texts() -> None:
    book = " ".join(f"Sentence number {n} ends here." for n in range(400))
    prose = corpus.Prose([book, "  "])
    rng = random.Random(6)
    for _ in range(20):
        assert " ".join(prose.passage(rng, 300)) in book


def test_held_out_probes_share_no_wording_with_the_corpus() -> None:
    """No four words in a row of a probe's own wording stand in any of 5,000 facts of the corpus."""
    rng = random.Random(8)
    seen: set[tuple[str, ...]] = set()
    for _ in range(5_000):
        fact = corpus.any_fact(rng)
        for text in (fact.statement, *fact.questions):
            seen |= set(_quads(text))
    forms = [form for forms in probes._FORMS.values() for form in forms]
    for statement, question, _ in forms:
        for text in (statement, question):
            shared = [quad for quad in _quads(text) if quad in seen and not any("{" in word for word in quad)]
            assert shared == []


def _quads(text: str) -> list[tuple[str, ...]]:
    words = text.lower().split()
    return [tuple(words[at : at + 4]) for at in range(len(words) - 3)]


BOOK = (
    "The captain had found a letter in the drawer of his cabin. Every sailor knew that Mary Dawson waited in the "
    "harbour, and she sang when the boats came home. No storm could keep them from the shore. "
)


def test_facts_of_sentences_stand_in_a_sentence_of_the_text_and_are_asked_by_their_name() -> None:
    prose = corpus.Prose([BOOK * 60])
    draw = corpus.with_sentences(prose)
    rng = random.Random(9)
    drawn = [draw(rng) for _ in range(1_500)]
    made = [fact for fact in drawn if fact.family in ("sentence", "same name")]
    assert 0.2 < len(made) / len(drawn) < 0.4
    for fact in made:
        before, after = fact.statement[: fact.value_at], fact.statement[fact.value_at + len(fact.value) :]
        assert before + fact.value + after == fact.statement
        name = re.split(r" \(['\"]", fact.identity)[0]  # the identity of a sentence whose name others share goes on
        around = re.sub(re.escape(name), " ", f"{before} {after}".lower())
        words = re.findall(r"\w+", around)
        # All but name and value is the text's; its outermost words may be cut.
        assert words and all(word in BOOK.lower() for word in words), fact
    assert {fact.family for fact in drawn} > {"attribute", "loose", "sentence", "same name"}


def test_a_look_alike_of_a_sentence_is_another_fact_of_its_kind() -> None:
    draw = corpus.with_sentences(corpus.Prose([BOOK * 60]))
    rng = random.Random(10)
    facts = [fact for fact in (draw(rng) for _ in range(2_000)) if fact.family in ("sentence", "same name")]
    for family in ("sentence", "same name"):
        pairs = [(fact, fact.like(rng)) for fact in facts if fact.family == family]
        assert {other.family for _, other in pairs} == {family}
        different = [fact.identity != other.identity for fact, other in pairs]
        assert sum(different) >= 0.8 * len(pairs) > 0  # the few others are thrown out by `unambiguous`


def test_without_prose_facts_come_from_templates_alone() -> None:
    assert corpus.with_sentences(None) is corpus.any_fact
