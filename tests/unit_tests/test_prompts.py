"""Templates: what they must hold, and that question and segment keep their tokens inside them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from xl3m_integrations.bundled.tokenizer import BOS, ROLES
from xl3m_integrations.errors import InputError, ModelLoadError, SettingError
from xl3m_integrations.prompts import DEFAULT_TEMPLATE, Template, require_question
from xl3m_integrations.tokens import TextTokenizer

QUESTION = "What is the code of gate 7?"
quick = settings(deadline=None, max_examples=60)


# ---------------------------------------------------------------------------------------------- parsing
def test_a_template_is_cut_at_its_placeholders():
    assert Template.parse("Read:\n{segment}\nQ: {question}\nA:") == Template("Read:\n", "\nQ: ", "\nA:")
    assert Template.parse("{segment}{question}") == Template("", "", "")


def test_other_braces_are_text():
    assert Template.parse('{"a": {segment}} {x} {question} {}') == Template('{"a": ', "} {x} ", " {}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{segment}",
        "{question}",
        "{question}{segment}",
        "{segment}{segment}{question}",
        "{segment}{question}{question}",
        "{segment}{question}{segment}",
        "{ segment }{question}",
    ],
)
def test_a_template_without_segment_then_question_is_refused(text):
    with pytest.raises(SettingError, match=r"must hold \{segment\} once and, after it, \{question\} once"):
        Template.parse(text)


@pytest.mark.parametrize("question", ["", " \n\t"])
def test_an_empty_question_is_refused(question):
    with pytest.raises(InputError, match="The question is empty"):
        require_question(question)


def test_a_question_is_returned_as_it_is():
    assert require_question("  why? ") == "  why? "


# ---------------------------------------------------------------------------------------------- chat templates
def test_a_tokenizer_without_chat_template_gets_the_default(pretrained):
    assert Template.of_tokenizer(pretrained["sentencepiece_like"]) == Template.parse(DEFAULT_TEMPLATE)


def test_a_chat_template_surrounds_segment_and_question(pretrained):
    system, user, assistant = ROLES
    assert system not in Template.of_tokenizer(pretrained["byte_level"]).before
    expected = Template(f"{BOS}{user}", "\n\nQuestion: ", assistant)
    assert Template.of_tokenizer(pretrained["byte_level"]) == expected


def test_a_chat_template_that_drops_the_message_is_refused():
    tokenizer = SimpleNamespace(chat_template="hello", apply_chat_template=lambda *a, **k: "hello")
    with pytest.raises(SettingError, match="drops the user's message; pass template="):
        Template.of_tokenizer(tokenizer)


# ---------------------------------------------------------------------------------------------- token ids
TEMPLATES = [DEFAULT_TEMPLATE, "{segment}{question}", "{segment} {question} ", "Read.\n{segment}\nQ:{question}"]
questions = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), st.just(QUESTION))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece_like"])
@quick
@given(question=questions)
def test_the_slice_covers_the_questions_tokens(pretrained, kind, template, question):
    tokenizer = TextTokenizer(pretrained[kind])
    prompt = tokenizer.wrap(Template.parse(template), question)
    assert question in tokenizer.decode(tokenizer.ids("x") + list(prompt.after[prompt.question]))


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_slice_holds_little_beside_the_question(tokenizer, template):
    prompt = tokenizer.wrap(Template.parse(template), QUESTION)
    covered = tokenizer.decode(prompt.after[prompt.question]).strip()
    assert covered == QUESTION


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece_like"])
def test_the_parts_spell_the_prompt_and_nothing_is_added_at_the_seam(pretrained, kind, template):
    tokenizer = TextTokenizer(pretrained[kind])
    prompt = tokenizer.wrap(Template.parse(template), QUESTION)
    segment = tokenizer.ids("The code is 7.")
    after = template.partition("{segment}")[2].replace("{question}", QUESTION)
    assert tokenizer.decode([*segment, *prompt.after]) == "The code is 7." + after
    assert prompt.overhead == len(prompt.before) + len(prompt.after)


def test_no_space_is_put_before_a_question_that_continues_the_segment(sentencepiece_tokenizer):
    """On its own such a tokenizer begins every text with a space, which would stand in mid-word here."""
    prompt = sentencepiece_tokenizer.wrap(Template.parse("{segment}{question}"), "tion of the gate")
    segment = sentencepiece_tokenizer.ids("The ques")
    assert sentencepiece_tokenizer.decode([*segment, *prompt.after]) == "The question of the gate"
    assert sentencepiece_tokenizer.decode([*segment, *sentencepiece_tokenizer.ids("tion")]) == "The ques tion"


def test_the_beginning_of_text_token_stands_once_at_the_front(tokenizer, pretrained):
    for template in (*map(Template.parse, TEMPLATES), Template.of_tokenizer(pretrained["byte_level"])):
        prompt = tokenizer.wrap(template, QUESTION)
        assert prompt.before[: len(tokenizer.bos_ids)] == tokenizer.bos_ids
        for bos in tokenizer.bos_ids:
            assert [*prompt.before, *prompt.after].count(bos) == 1


def test_a_template_that_ends_in_special_tokens_is_read_as_the_model_was_trained(pretrained, byte_level_tokenizer):
    hugging_face = pretrained["byte_level"]
    prompt = byte_level_tokenizer.wrap(Template.of_tokenizer(hugging_face), QUESTION)
    content = f"The gate is open.\n\nQuestion: {QUESTION}"
    expected = hugging_face.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, return_dict=False
    )
    assert [*prompt.before, *byte_level_tokenizer.ids("The gate is open."), *prompt.after] == expected


def test_a_special_token_spelled_in_the_question_cannot_end_its_turn(pretrained, byte_level_tokenizer):
    hugging_face = pretrained["byte_level"]
    question = f"Who said {ROLES[2]}no{hugging_face.eos_token} and {BOS}?"
    prompt = byte_level_tokenizer.wrap(Template.of_tokenizer(hugging_face), question)
    special = set(hugging_face.all_special_ids)
    inside = prompt.after[prompt.question]
    assert not special & set(inside)
    assert question in byte_level_tokenizer.decode(inside)
    assert [token for token in prompt.after if token in special] == [hugging_face.convert_tokens_to_ids(ROLES[2])]


# ---------------------------------------------------------------------------------------------- the tokenizer's copy
def test_the_callers_tokenizer_is_left_alone(pretrained):
    hugging_face = pretrained["byte_level"]
    before = hugging_face.backend_tokenizer.to_str()
    own = TextTokenizer(hugging_face)
    own.wrap(Template.of_tokenizer(hugging_face), QUESTION)
    own.encode(["漢字 <|eos|>"])
    assert hugging_face.backend_tokenizer.to_str() == before
    assert hugging_face("<|eos|>", add_special_tokens=False).input_ids == [hugging_face.eos_token_id]


def test_truncation_and_padding_of_the_callers_tokenizer_do_not_count(pretrained):
    backend = Tokenizer.from_str(pretrained["byte_level"].backend_tokenizer.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=400)
    limited = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BOS, eos_token="<|eos|>")
    assert len(limited.backend_tokenizer.encode(QUESTION).ids) == 400
    assert TextTokenizer(limited).ids(QUESTION) == TextTokenizer(pretrained["byte_level"]).ids(QUESTION)
    assert TextTokenizer(limited).count(QUESTION) > 4


def test_a_tokenizer_without_a_fast_backend_is_refused():
    with pytest.raises(ModelLoadError, match="SimpleNamespace has no fast backend"):
        TextTokenizer(SimpleNamespace())


def test_a_lone_surrogate_is_refused(tokenizer):
    with pytest.raises(InputError, match="at character 2:"):
        tokenizer.ids("ab\ud800")


@pytest.mark.parametrize("unknown", ["漢", "\u2028", "\u3000", "e\u0301"])
def test_offsets_after_a_character_that_the_vocabulary_lacks_are_right(tokenizer, unknown):
    """A tokenizer that leaves such a character out without a trace would make them too small."""
    text = f"gate{unknown * 3} 7 code"
    [encoding] = tokenizer.encode([text])
    assert encoding.offsets[-1][1] == len(text)
