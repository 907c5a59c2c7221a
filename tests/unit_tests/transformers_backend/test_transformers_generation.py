"""What the backend writes against greedy decoding by the plain reference."""

from __future__ import annotations

import threading
from itertools import islice
from typing import Any

import pytest
import torch
from models import (
    ARCHITECTURES,
    QUESTION,
    WINDOW,
    make_backend,
    make_model,
    make_tokenizer,
    plain_ids,
    shared_model,
    shared_tokenizer,
    text_of,
)
from plain_reference import CONTEXT, greedy, hooked, memory_of, prompt_ids, recorded

from xl3m_integrations import InputError, ScoringError
from xl3m_integrations.backends.transformers import TransformersBackend


def plain_answer(backend: TransformersBackend, tokens: int) -> str:
    chosen = greedy(backend.model, prompt_ids(backend), tokens, backend.model.generation_config.eos_token_id)[0]
    return backend.hf_tokenizer.decode(chosen, skip_special_tokens=True)


def streamed(backend: TransformersBackend, tokens: int, **options: Any) -> list[str]:
    return list(backend.stream(CONTEXT, QUESTION, max_new_tokens=tokens, **options))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_stream_is_the_greedy_answer(architecture: str):
    backend = make_backend(architecture)
    expected = plain_answer(backend, 20)
    assert expected
    pieces = streamed(backend, 20)
    assert "".join(pieces) == expected
    assert not writers()


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "xl3m-generate"]


def test_the_stream_comes_in_pieces():
    backend = make_backend("gpt2", template="{segment} {question} ")
    assert len(streamed(backend, 40)) > 2


def test_generation_without_pad_and_eos():
    model = make_model()
    model.generation_config.pad_token_id = model.generation_config.eos_token_id = None
    model.config.pad_token_id = model.config.eos_token_id = None
    backend = TransformersBackend(model, make_tokenizer(eos=False, pad=False))
    assert "".join(streamed(backend, 12)) == plain_answer(backend, 12)


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_stop_strings_end_the_answer_and_are_left_out(architecture: str, length: int):
    backend = make_backend(architecture)
    whole = plain_answer(backend, 20)
    at = next(at for at in range(len(whole) // 3, len(whole)) if whole[at : at + length].isascii())
    stop = whole[at : at + length]
    expected = whole[: whole.index(stop)]
    assert "".join(streamed(backend, 20, stop=("not in it", stop))) == expected
    assert not writers()


def test_a_stop_string_that_never_comes_holds_nothing_back():
    backend = make_backend()
    assert "".join(streamed(backend, 12, stop=("a string that never comes",))) == plain_answer(backend, 12)


def test_closing_the_stream_stops_the_work():
    passes: list[tuple[int, ...]] = []
    backend = TransformersBackend(recorded(shared_model(), passes), shared_tokenizer())
    stream = backend.stream("Hello.", "Why?", max_new_tokens=150)
    assert next(stream)
    assert writers()
    stream.close()
    assert not writers()
    done = len(passes)
    assert list(islice(stream, 1)) == []
    assert len(passes) == done


@pytest.mark.parametrize(
    ("options", "drawn"),
    [
        ({"do_sample": True, "temperature": 5.0}, True),
        ({"temperature": 5.0}, True),
        ({"temperature": 5.0, "do_sample": False}, False),
        ({"temperature": 0, "do_sample": True}, False),
        ({"temperature": 0.0}, False),
        ({}, False),
    ],
)
def test_a_temperature_samples_unless_it_is_zero(options: dict[str, Any], drawn: bool):
    backend = make_backend()
    said = set()
    for seed in range(3):
        torch.manual_seed(seed)
        said.add("".join(streamed(backend, 8, **options)))
    assert len(said) == (3 if drawn else 1)


def test_a_generation_config_that_samples_is_overruled():
    """Many published models sample by default; an answer read from a text should be the same each time."""
    model = make_model()
    model.generation_config.update(do_sample=True, temperature=3.0, top_p=0.9, top_k=20)
    backend = TransformersBackend(model, shared_tokenizer())
    assert "".join(streamed(backend, 12)) == plain_answer(make_backend(), 12)


def test_a_prompt_too_long_is_refused():
    backend = make_backend()
    used = backend.overhead(QUESTION) + backend.count(CONTEXT)
    assert streamed(backend, WINDOW - used)
    with pytest.raises(InputError, match=f"has {used} tokens.*window is {WINDOW} tokens.*max_new_tokens"):
        streamed(backend, WINDOW - used + 1)


def test_a_model_that_fails_while_writing():
    def refuse(ids: torch.Tensor) -> None:
        if ids.shape[1] == 1:
            raise RuntimeError("the plug was pulled")

    backend = TransformersBackend(hooked(shared_model(), refuse), shared_tokenizer())
    with pytest.raises(ScoringError, match="the plug was pulled"):
        streamed(backend, 5)
    assert not writers()


PROMPTS = [text_of(size, seed=size) for size in (40, 200, 90)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_prompt_is_completed_as_it_stands(architecture: str):
    backend = make_backend(architecture)
    expected = []
    for prompt in PROMPTS:
        ids = shared_tokenizer()(prompt).input_ids  # with the beginning marked, as for any text
        assert backend.count_prompt(prompt) == len(ids)
        chosen = greedy(backend.model, ids, 10, backend.model.generation_config.eos_token_id)[0]
        expected.append(shared_tokenizer().decode(chosen, skip_special_tokens=True))
    assert ["".join(backend.complete(prompt, max_new_tokens=10)) for prompt in PROMPTS] == expected
    assert backend.complete_many(PROMPTS, max_new_tokens=10) == expected


def test_many_prompts_stop_at_stop_strings():
    backend = make_backend()
    whole = backend.complete_many(PROMPTS, max_new_tokens=10)
    stop = whole[1][len(whole[1]) // 2]
    expected = [text.partition(stop)[0] for text in whole]
    assert backend.complete_many(PROMPTS, max_new_tokens=10, stop=(stop,)) == expected


def test_special_tokens_of_a_whole_prompt_count():
    backend = make_backend()
    assert backend.count_prompt("<|bos|>Hi<|eos|>") == 2 + len(plain_ids("Hi"))


def test_many_prompts_of_which_one_is_too_long():
    backend = make_backend()
    with pytest.raises(InputError, match=f"window is {WINDOW} tokens"):
        backend.complete_many([*PROMPTS, text_of(4_000)], max_new_tokens=4)
    assert backend.complete_many([], max_new_tokens=4) == []


def test_many_prompts_on_a_model_that_fails():
    backend = TransformersBackend(hooked(shared_model(), memory_of(5)), shared_tokenizer())
    with pytest.raises(ScoringError, match="out of memory"):
        backend.complete_many(PROMPTS, max_new_tokens=4)
