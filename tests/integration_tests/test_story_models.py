"""Two small pretrained story models, where their folders are at hand: real weights, real tokenizers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xl3m_integrations import XL3M

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("XL3M_TEST_MODELS", ROOT.parent / "shared" / "data" / "models"))
NAMES = ("stories260k", "tinystories-656k")

STORIES = (
    "Once upon a time, there was a little girl named Lily. She loved to play in the park with her red ball. One day "
    "the ball rolled into the pond. “Oh no!” said Lily. A big duck swam over and pushed the ball back to her. ",
    "Tom had a toy boat 🚤. He put the boat in the water and it floated away. Tom was sad. His mom said, “Don’t cry, "
    "Tom. We can make a new boat.” They made a boat from paper, and it was even better. ",
    "The old dog slept by the fire. Every night he dreamed of cheese 🧀 and of running on the hill. In the morning the "
    "boy gave him bread, and the dog wagged his tail. ",
    "A small bird sat on a tree. It could not fly — its wing was hurt. A kind man took the bird home and gave it "
    "water. Soon the bird could fly again, and it sang a happy song. ",
)
TEXT = "".join(STORIES[number % len(STORIES)] for number in range(24))
QUESTION = "What did the duck push back to Lily?"


@pytest.fixture(scope="module", params=NAMES)
def xl3m(request: pytest.FixtureRequest) -> XL3M:
    folder = MODELS / request.param
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; XL3M_TEST_MODELS names the folder that holds {request.param}.")
    return XL3M.from_pretrained(folder, dtype="float32", device="cpu")


def test_segments_are_the_texts_own(xl3m: XL3M):
    selection = xl3m.select(TEXT, QUESTION, top_k=10**6)
    assert all(TEXT[s.start : s.end] == s.text for s in selection.segments)
    assert selection.key_context.text == TEXT
    assert selection.key_context.spans == ((0, len(TEXT)),)
    assert len(set(selection.scores)) > 4


@pytest.mark.parametrize("measure", ["entropy", "question_likelihood", "answer_entropy", "blend"])
def test_every_measure_keeps_the_best(xl3m: XL3M, measure: str):
    selection = xl3m.select(TEXT, QUESTION, top_k=3, measure=measure)
    best = min(selection.segments, key=lambda s: s.rank)
    assert best.score == max(selection.scores)
    assert len(selection.segments) == 3


def test_the_answer_is_written_within_the_window(xl3m: XL3M):
    answer = xl3m.answer(TEXT, QUESTION, max_new_tokens=12)
    assert answer.text
    assert answer.selection is not None
    assert answer.prompt_tokens + 12 <= xl3m.window
    assert "".join(xl3m.stream(TEXT, QUESTION, max_new_tokens=12)).strip() == answer.text


def test_a_short_text_is_read_whole(xl3m: XL3M):
    answer = xl3m.answer(STORIES[0], QUESTION)
    assert answer.key_context.text == STORIES[0]
    assert answer.selection is None


def test_the_story_that_goes_on_with_the_question_is_the_best(xl3m: XL3M):
    """A sentence is likeliest after the story that it was taken from: these models tell stories, they do not chat."""
    bare = XL3M.from_pretrained(
        model=xl3m.scorer.model, tokenizer=xl3m.scorer.hf_tokenizer, template="{segment}{question}"
    )
    for number, continuation in enumerate(
        (
            "Lily was happy that the duck gave her the ball.",
            "Tom and his mom put the paper boat in the water.",
            "The dog slept by the fire again.",
            "The bird thanked the kind man and sang a happy song.",
        )
    ):
        selections = bare.select_documents(STORIES, continuation, top_k=1, measure="question_likelihood")
        kept = [at for at, selection in enumerate(selections) if selection.segments]
        assert kept == [number]
