"""A tuned lens: what least squares say, what scoring makes of it, and which lens is taken for which model."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from models import (
    ARCHITECTURES,
    DEPTH,
    QUESTION,
    WINDOW,
    deep_engine,
    deep_model,
    final_norm,
    make_model,
    make_tokenizer,
    shared_tokenizer,
    text_of,
)
from torch import nn

from xl3m_integrations import XL3M, InputError, SettingError, TunedLens, fit_lens
from xl3m_integrations.backends import ray as ray_backend
from xl3m_integrations.backends import transformers
from xl3m_integrations.backends.early_exit import first_layers, layers_of
from xl3m_integrations.backends.tuned_lens import FILE, Translated
from xl3m_integrations.lens_fitting import RIDGE

QUESTIONS = [QUESTION, "Who?", "And why did the ferry leave so early?"]
TEXT = text_of(1_500, seed=1)
EXAMPLES = [(QUESTIONS[seed % 3], text_of(150 + 4 * seed, seed)) for seed in range(30)]


@cache
def lens_of(architecture: str = "llama") -> TunedLens:
    return fit_lens(deep_engine(architecture), EXAMPLES)


@torch.no_grad()
def states(model: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    """What each layer gives, the last one before the final norm: from transformers' own hidden states and a hook."""
    reference, before_norm = deepcopy(model), []
    final_norm(reference).register_forward_pre_hook(lambda module, given: before_norm.append(given[0]))
    hidden = reference(ids, output_hidden_states=True).hidden_states
    return [*hidden[1:DEPTH], before_norm[-1]]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestEveryArchitecture:
    def test_it_is_the_least_squares_of_the_positions_that_measures_look_at(self, architecture: str):
        scorer, lens = deep_engine(architecture).scorer, lens_of(architecture)
        inputs: dict[int, list[torch.Tensor]] = {1: [], 2: []}
        targets = []
        for question, passage in EXAMPLES:  # one by one, without padding
            prompt = scorer.prompt(question)
            ids = torch.tensor([[*prompt.before, *scorer.tokenizer.ids(passage), *prompt.after]])
            looked_at = len(prompt.after) - prompt.question.start + 1
            of_layers = [each[0, -looked_at:].double() for each in states(deep_model(architecture), ids)]
            targets.append(of_layers[-1] / of_layers[-1].square().mean(-1, keepdim=True).sqrt())
            for layer, rows in inputs.items():
                rows.append(torch.cat([of_layers[layer - 1], torch.ones(looked_at, 1)], 1))
        assert sorted(lens.translators) == [1, 2]
        for layer, rows in inputs.items():
            seen, wanted = torch.cat(rows), torch.cat(targets)
            ridge = (RIDGE * seen.square().sum(0).mean()).sqrt() * torch.eye(seen.shape[1])
            solution = torch.linalg.lstsq(
                torch.cat([seen, ridge.double()]), torch.cat([wanted, wanted.new_zeros(len(ridge), wanted.shape[1])])
            ).solution
            torch.testing.assert_close(lens.translators[layer].double(), solution, rtol=1e-2, atol=1e-3)

    @pytest.mark.parametrize("layers", range(1, DEPTH))
    @torch.no_grad()
    def test_scoring_reads_the_translation_through_norm_and_head(self, architecture: str, layers: int):
        model, lens = deep_model(architecture), lens_of(architecture)
        ids = torch.randint(3, 600, (2, 40), generator=torch.Generator().manual_seed(1))
        translator = lens.translators[layers]
        translated = states(model, ids)[layers - 1] @ translator[:-1] + translator[-1]
        expected = model.get_output_embeddings()(final_norm(model)(translated))
        torch.testing.assert_close(first_layers(model, layers, lens)(ids).logits, expected, rtol=1e-4, atol=1e-3)
        assert (first_layers(model, layers)(ids).logits - expected).abs().max() > 0.1

    def test_kept_and_shared_equal_plain(self, architecture: str):
        xl3m = deep_engine(architecture, exit_layer=2, lens=lens_of(architecture))
        index = xl3m.index(TEXT)
        plain = [xl3m.select(TEXT, question, top_k=99) for question in QUESTIONS]
        for found in (
            [index.select(question, top_k=99) for question in QUESTIONS],
            xl3m.select_many(TEXT, QUESTIONS, top_k=99),
            index.select_many(QUESTIONS, top_k=99),
        ):
            for one, expected in zip(found, plain, strict=True):
                assert one.scores == pytest.approx(expected.scores, abs=1e-4)

    def test_the_callers_model_is_left_as_it_was(self, architecture: str):
        model = make_model(architecture, **{"n_layer" if architecture == "gpt2" else "num_hidden_layers": DEPTH})
        modules = dict(model.named_modules())
        ids = torch.arange(3, 40)[None]
        before = model(ids).logits
        xl3m = XL3M.from_pretrained(model=model, tokenizer=shared_tokenizer())
        lens = fit_lens(xl3m, EXAMPLES[:5])
        XL3M.from_pretrained(model=model, tokenizer=shared_tokenizer(), exit_layer=1, lens=lens).select(TEXT, QUESTION)
        assert dict(model.named_modules()) == modules
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules.values())
        assert torch.equal(model(ids).logits, before)


def test_layers_can_be_chosen_and_examples_come_as_an_iterator():
    lens = fit_lens(deep_engine(), iter(EXAMPLES), layers=[2])
    assert list(lens.translators) == [2]
    torch.testing.assert_close(lens.translators[2], lens_of().translators[2])


def test_an_engine_that_leaves_early_has_the_lens_of_the_whole_model():
    early = fit_lens(deep_engine(exit_layer=1), EXAMPLES)
    torch.testing.assert_close(early.translators[2], lens_of().translators[2])


def test_the_reader_uses_all_layers():
    context = text_of(200)
    early = deep_engine(exit_layer=1, lens=lens_of())
    assert early.answer(context, QUESTION).text == deep_engine().answer(context, QUESTION).text


def test_fused_layers_stand_before_it(monkeypatch: pytest.MonkeyPatch):
    plain = deep_engine(exit_layer=2, lens=lens_of()).select(TEXT, QUESTION, top_k=9)
    monkeypatch.setattr(transformers, "FUSED", (torch.float32,))
    fused = deep_engine(exit_layer=2, lens=lens_of())
    last = layers_of(fused.scorer.scoring_model)[-1]
    assert isinstance(last, Translated)
    assert type(last.layer).__name__ == "FusedLayer"
    assert fused.select(TEXT, QUESTION, top_k=9).scores == pytest.approx(plain.scores, abs=1e-4)


# ---------------------------------------------------------------------------------------------- files
def test_it_comes_back_from_its_file(tmp_path: Path):
    lens = lens_of()
    lens.save(tmp_path / "own.safetensors")
    found = TunedLens.load(tmp_path / "own.safetensors")
    assert found.translators.keys() == lens.translators.keys()
    for layer, translator in lens.translators.items():
        assert torch.equal(found.translators[layer], translator)
    assert [file.name for file in tmp_path.iterdir()] == ["own.safetensors"]
    by_path = deep_engine(exit_layer=1, lens=tmp_path / "own.safetensors").select(TEXT, QUESTION, top_k=9)
    assert by_path.scores == deep_engine(exit_layer=1, lens=lens).select(TEXT, QUESTION, top_k=9).scores


def test_the_one_in_the_models_folder_is_taken_for_the_layers_that_it_has(tmp_path: Path):
    deep_model().save_pretrained(tmp_path)
    shared_tokenizer().save_pretrained(tmp_path)
    settings = {"dtype": "float32", "device": "cpu", "window": WINDOW}
    whole, without = (XL3M.from_pretrained(tmp_path, exit_layer=layers, **settings) for layers in (None, 1))
    fit_lens(without, EXAMPLES, layers=[1]).save(tmp_path)
    assert (tmp_path / FILE).exists()
    found = {n: XL3M.from_pretrained(tmp_path, exit_layer=n, **settings).scorer for n in (1, 2, DEPTH, None)}
    assert found[1].lens is not None
    assert [found[n].lens for n in (2, DEPTH, None)] == [None] * 3
    assert without.scorer.lens is None
    assert found[1].fingerprint != without.scorer.fingerprint
    assert found[None].fingerprint == whole.scorer.fingerprint
    with_replica = ray_backend.Replica(str(tmp_path), settings | {"exit_layer": 1})
    assert with_replica.about()["fingerprint"] == found[1].fingerprint


def test_another_lens_is_another_fingerprint():
    other = fit_lens(deep_engine(), EXAMPLES[:7])
    prints = [deep_engine(exit_layer=1, lens=lens).scorer.fingerprint for lens in (None, lens_of(), other)]
    assert len(set(prints)) == 3
    assert deep_engine(exit_layer=1, lens=lens_of()).scorer.fingerprint == prints[1]


# ---------------------------------------------------------------------------------------------- the bundled one
def test_with_the_bundled_models_lens_half_of_the_layers_find_what_all_find():
    from xl3m_integrations.certainty import Blend
    from xl3m_integrations.demo import make_haystack

    whole, half = XL3M.default(), XL3M.default(exit_layer=3)
    bare = XL3M.from_pretrained(model=whole.scorer.model, tokenizer=whole.scorer.hf_tokenizer, exit_layer=3)
    haystack = make_haystack(whole, 6_000, 12, seed=61)
    questions = [fact.question for _, fact in haystack.needles]

    def found(xl3m: XL3M) -> int:
        selections = xl3m.select_many(haystack.text, questions, measure=Blend(second=None), top_k=2)
        return sum(
            any(segment.start <= at and at + len(fact.statement) <= segment.end for segment in selection.segments)
            for (at, fact), selection in zip(haystack.needles, selections, strict=True)
        )

    with_lens = found(half)
    assert with_lens >= 11
    assert with_lens >= found(whole) - 1
    assert found(bare) < with_lens


# ---------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize("layers", [[], [0], [DEPTH], [1, DEPTH + 1]])
def test_layers_that_the_model_has_not(layers: list[int]):
    with pytest.raises(SettingError, match=rf"layers is .*each must be from 1 to {DEPTH - 1}"):
        fit_lens(deep_engine(), EXAMPLES, layers=layers)


def test_no_examples():
    with pytest.raises(InputError, match="no examples"):
        fit_lens(deep_engine(), [])


def test_an_example_that_does_not_fit_the_window_leaves_no_hooks_behind():
    with pytest.raises(InputError, match=rf"tokens, template included, but the model's window is {WINDOW} tokens"):
        fit_lens(deep_engine(), [(QUESTION, text_of(4_000))])
    assert not any(module._forward_hooks for module in deep_model().modules())


def test_a_scorer_without_layers():
    class Elsewhere:
        tokenizer = deep_engine().scorer.tokenizer
        window = WINDOW

    xl3m = deep_engine()
    xl3m.scorer = Elsewhere()
    with pytest.raises(SettingError, match="fitted on a local model, but the scorer is a Elsewhere"):
        fit_lens(xl3m, EXAMPLES)


def test_a_lens_of_another_model():
    other = make_model(seed=5, num_hidden_layers=DEPTH)
    with pytest.raises(SettingError, match=f"fitted on another model than this LlamaForCausalLM.*remove {FILE}"):
        XL3M.from_pretrained(model=other, tokenizer=shared_tokenizer(), exit_layer=1, lens=lens_of())
    wider = make_model(num_hidden_layers=DEPTH, hidden_size=64)
    with pytest.raises(SettingError, match="fitted on another model"):
        XL3M.from_pretrained(model=wider, tokenizer=shared_tokenizer(), exit_layer=1, lens=lens_of())


def test_the_same_model_in_other_numbers_is_the_same():
    half = deepcopy(deep_model()).bfloat16()
    xl3m = XL3M.from_pretrained(model=half, tokenizer=shared_tokenizer(), exit_layer=1, lens=lens_of())
    assert xl3m.scorer.scoring_model(torch.arange(3, 9)[None]).logits.dtype == torch.bfloat16


def test_a_layer_that_the_lens_has_not():
    lens = fit_lens(deep_engine(), EXAMPLES, layers=[2])
    with pytest.raises(SettingError, match="no translator behind layer 1, only behind 2"):
        deep_engine(exit_layer=1, lens=lens)


def test_a_lens_without_a_layer():
    with pytest.raises(SettingError, match="lens is given without exit_layer"):
        deep_engine(lens=lens_of())


@pytest.mark.parametrize("content", [None, b"", b"no lens at all", "tensors"])
def test_files_that_are_no_lens(content: bytes | str | None, tmp_path: Path):
    file = tmp_path / "own.safetensors"
    if content == "tensors":
        from safetensors.torch import save_file

        save_file({"layers.one": torch.zeros(2), "embeddings": torch.zeros(2)}, file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(SettingError, match="cannot be read as a tuned lens"):
        deep_engine(exit_layer=1, lens=file)


def test_a_place_that_cannot_be_written_to(tmp_path: Path):
    with pytest.raises(SettingError, match=r"lens cannot be written to .*nowhere.*name another file"):
        lens_of().save(tmp_path / "nowhere" / "own.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_server_has_no_layers():
    with pytest.raises(SettingError, match="needs the model's layers, which a server does not show"):
        XL3M.from_pretrained("m", backend="openai", base_url="http://localhost:1", tokenizer=make_tokenizer(), lens="a")


def test_a_layer_behind_it_still_says_what_kind_it_is():
    layer = nn.Linear(2, 2)
    layer.attention_type = "full_attention"
    behind = Translated(layer, torch.zeros(3, 2))
    assert behind.attention_type == "full_attention"
    with pytest.raises(AttributeError):
        _ = behind.nothing
