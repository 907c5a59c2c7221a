"""A conversation of any length fits: what stays verbatim, what is cut, and what is given up first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from xl3m_integrations import XL3M
from xl3m_integrations.conversation import FittedConversation, Turn, fit_conversation
from xl3m_integrations.errors import InputError, SettingError
from xl3m_integrations.fitting import Window

RAIN = "It rained, and nothing else was to be told. " * 150
FACT = "The pin of the blue locker is 7781. "
ASKED = "What is the pin of the blue locker?"
DOCUMENT = RAIN + FACT + RAIN
RULES = "You answer from the text that is given to you, and from nothing else. "


@pytest.fixture(scope="module")
def xl3m() -> XL3M:
    return XL3M.default()


def fitted(xl3m: XL3M, turns: Sequence[Turn], answer: int = 64, question: str | None = None) -> FittedConversation:
    reader = xl3m.reader
    assert reader is not None
    window = Window(reader.window, answer, reader.count)

    def count(texts: Sequence[str | None]) -> int:
        return sum(8 + reader.count(text) for text in texts if text is not None)

    found = fit_conversation(xl3m, turns, window, count, question=question, top_k=4)
    assert found.tokens == count(found.texts) <= window.prompt
    for number, context in found.contexts.items():
        for start, end in context.spans:
            assert turns[number].text[start:end] in (found.texts[number] or "")
    return found


def holding(found: FittedConversation) -> list[int]:
    """Numbers of the turns that hold the fact."""
    return [number for number, text in enumerate(found.texts) if text and FACT.strip() in text]


@pytest.mark.parametrize("sentences", [1, 10, 24, 100])
def test_a_system_message_of_any_length_leaves_room_for_the_passage(xl3m: XL3M, sentences: int) -> None:
    found = fitted(xl3m, [Turn("system", RULES * sentences), Turn("user", f"{DOCUMENT}\n\n{ASKED}")])
    assert holding(found) == [1] and ASKED in (found.texts[1] or "")
    assert (found.texts[0] or "").startswith(RULES) or sentences > 10
    assert sentences > 10 or found.texts[0] == RULES * sentences


def test_a_document_in_the_system_message_is_cut_and_its_instructions_stay(xl3m: XL3M) -> None:
    found = fitted(xl3m, [Turn("system", f"{RULES}\n\n{DOCUMENT}\n\nBe brief."), Turn("user", ASKED)])
    assert holding(found) == [0] and found.texts[1] == ASKED
    assert found.texts[0] is not None and RULES in found.texts[0] and found.texts[0].endswith("Be brief.")


def test_short_turns_give_way_to_the_passage(xl3m: XL3M) -> None:
    short = [Turn("user", "Is it so?"), Turn("assistant", "It is so.")] * 40
    found = fitted(xl3m, [Turn("system", RULES * 14), Turn("user", DOCUMENT), *short, Turn("user", ASKED)])
    assert holding(found) == [1] and found.texts[-1] == ASKED
    assert None in found.texts and None not in found.texts[-10:]  # the latest are kept


def test_short_turns_alone_may_fill_the_window(xl3m: XL3M) -> None:
    short = [Turn("user", "ok?"), Turn("assistant", "yes.")] * 200
    found = fitted(xl3m, [*short, Turn("user", ASKED)])
    assert found.texts[-1] == ASKED and found.texts[-2] == "yes."


def test_a_question_is_appended_where_no_turn_asks_it(xl3m: XL3M) -> None:
    for text in (FACT, DOCUMENT):
        found = fitted(xl3m, [Turn("user", text)], question=ASKED)
        assert (found.texts[0] or "").endswith(f"\n\n{ASKED}") and holding(found) == [0]


def test_the_question_is_the_last_turn_that_says_something(xl3m: XL3M) -> None:
    found = fitted(xl3m, [Turn("user", ASKED), Turn("tool", DOCUMENT), Turn("user", "")])
    assert found.question == ASKED and holding(found) == [1]


def test_where_no_segment_fits_nothing_is_answered(xl3m: XL3M) -> None:
    with pytest.raises(SettingError, match="no room for one segment"):
        fitted(xl3m, [Turn("user", f"{DOCUMENT}\n\n{ASKED}")], answer=xl3m.window - 140)
    with pytest.raises(InputError, match="Shorten"):
        fitted(xl3m, [Turn("user", DOCUMENT)], question=RULES * 100)
    with pytest.raises(InputError, match="no user turn"):
        fitted(xl3m, [Turn("system", RULES)])
