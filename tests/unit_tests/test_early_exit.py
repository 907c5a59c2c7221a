"""Scoring from a middle layer: what the model's own hidden states, norm and head give, and nothing else changes."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from models import (
    ARCHITECTURES,
    DEPTH,
    QUESTION,
    ROUNDING,
    WINDOW,
    deep_engine,
    deep_model,
    final_norm,
    make_model,
    shared_tokenizer,
    text_of,
)
from torch import nn

from xl3m_integrations import XL3M, SettingError
from xl3m_integrations.backends import ray as ray_backend
from xl3m_integrations.backends.early_exit import first_layers
from xl3m_integrations.backends.shared_pass import Sharing
from xl3m_integrations.certainty import Blend, SecondLook

QUESTIONS = [QUESTION, "Who?", "And why did the ferry leave so early?"]
TEXT = text_of(1_500, seed=1)


def ids_of(rows: int = 2, tokens: int = 40) -> torch.Tensor:
    return torch.randint(3, 600, (rows, tokens), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logit_lens(model: Any, ids: torch.Tensor, layers: int) -> torch.Tensor:
    """From the hidden states that transformers gives."""
    reference = deepcopy(model)  # which hangs hooks on what it is asked of
    hidden = reference(ids, output_hidden_states=True).hidden_states[layers]
    return reference.get_output_embeddings()(hidden if layers == DEPTH else final_norm(reference)(hidden))


@pytest.mark.parametrize("layers", range(1, DEPTH + 1))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestEveryArchitecture:
    @torch.no_grad()
    def test_equals_hidden_states_through_norm_and_head(self, architecture: str, layers: int):
        model, ids = deep_model(architecture), ids_of()
        expected = logit_lens(model, ids, layers)
        torch.testing.assert_close(first_layers(model, layers)(ids).logits, expected)
        whole = model(ids).logits
        if layers == DEPTH:
            torch.testing.assert_close(whole, expected)
        else:  # else the comparison would prove nothing
            assert (whole - expected).abs().max() > 0.1

    def test_kept_and_shared_equal_plain(self, architecture: str, layers: int):
        """The keys and values of an index are those of the first layers; a second look reads the whole model's."""
        xl3m = deep_engine(architecture, exit_layer=layers)
        assert xl3m.scorer.sharing is Sharing.PACKS
        index = xl3m.index(TEXT)
        plain = [xl3m.select(TEXT, question, top_k=99) for question in QUESTIONS]
        for found in (
            [index.select(question, top_k=99) for question in QUESTIONS],
            [index.select(question, top_k=99) for question in QUESTIONS],
            xl3m.select_many(TEXT, QUESTIONS, top_k=99),
            index.select_many(QUESTIONS, top_k=99),
        ):
            for one, expected in zip(found, plain, strict=True):
                assert one.scores == pytest.approx(expected.scores, abs=1e-4)
                assert [s.rank for s in one.segments] == [s.rank for s in expected.segments]

    def test_the_callers_model_is_left_as_it_was(self, architecture: str, layers: int):
        model = make_model(architecture, **{"n_layer" if architecture == "gpt2" else "num_hidden_layers": DEPTH})
        modules = dict(model.named_modules())
        hooks = {name: len(module._forward_pre_hooks) + len(module._forward_hooks) for name, module in modules.items()}
        config = model.config.to_dict()
        before = model(ids_of()).logits
        cut = first_layers(model, layers)
        cut(ids_of())
        assert dict(model.named_modules()) == modules
        assert {n: len(m._forward_pre_hooks) + len(m._forward_hooks) for n, m in modules.items()} == hooks
        assert model.config.to_dict() == config
        assert torch.equal(model(ids_of()).logits, before)
        owned = {parameter.data_ptr() for parameter in model.parameters()}
        assert {parameter.data_ptr() for parameter in cut.parameters()} <= owned


def test_hidden_states_can_still_be_had_of_the_callers_model():
    """A configuration that asks for them makes transformers hang hooks on the layers, once for each model it sees."""
    model = make_model(num_hidden_layers=DEPTH, output_hidden_states=True)
    first_layers(model, 1)(ids_of())
    assert len(model(ids_of()).hidden_states) == DEPTH + 1


# ---------------------------------------------------------------------------------------------- what stays whole
def test_all_layers_are_the_same_as_none():
    plain, whole = deep_engine(), deep_engine(exit_layer=DEPTH)
    assert whole.select(TEXT, QUESTIONS[0], top_k=9).scores == plain.select(TEXT, QUESTIONS[0], top_k=9).scores
    assert whole.scorer.fingerprint == plain.scorer.fingerprint


def test_the_reader_and_the_second_look_use_all_layers():
    plain, early = deep_engine(), deep_engine(exit_layer=1)
    context = text_of(200)
    assert early.answer(context, QUESTIONS[0]).text == plain.answer(context, QUESTIONS[0]).text
    all_sentences = Blend(second=SecondLook(segments=64))
    found, expected = (xl3m.select(TEXT, QUESTIONS[0], top_k=99, measure=all_sentences) for xl3m in (early, plain))
    answers = 0
    for one, other in zip(found.segments, expected.segments, strict=True):
        both = one.evidence.keys() & other.evidence.keys()
        for name in ("regret", "sentence_entropy", *({"answer_entropy"} & both)):
            assert one.evidence[name] == pytest.approx(other.evidence[name], abs=1e-4)
        answers += "answer_entropy" in both
        assert abs(one.evidence["entropy"] - other.evidence["entropy"]) > 1e-3
    assert answers > 0


def test_another_exit_is_another_fingerprint_and_a_journal_keeps_them_apart(tmp_path: Path):
    engines = [deep_engine(exit_layer=layers) for layers in (None, 1, 2)]
    assert len({xl3m.scorer.fingerprint for xl3m in engines}) == 3
    for xl3m in engines:
        alone = xl3m.select(TEXT, QUESTIONS[0], top_k=9)
        kept = [xl3m.select(TEXT, QUESTIONS[0], top_k=9, journal=tmp_path / "scores.db") for _ in range(2)]
        assert [one.reused for one in kept] == [0, len(alone.scores)]
        assert kept[0].scores == kept[1].scores == pytest.approx(alone.scores, abs=ROUNDING)


def test_files_of_keys_and_values_are_kept_apart(tmp_path: Path):
    for layers in (None, 1, 2, 1):
        xl3m = deep_engine(exit_layer=layers)
        found = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path).select(QUESTIONS[0], top_k=9)
        assert found.scores == pytest.approx(xl3m.select(TEXT, QUESTIONS[0], top_k=9).scores, abs=1e-4)


def test_layers_that_do_not_score_are_part_of_the_fingerprint():
    """The second look reads with them."""
    model = deepcopy(deep_model())
    with torch.no_grad():
        model.model.layers[-1].mlp.down_proj.weight[0, 0] += 1
    other = XL3M.from_pretrained(model=model, tokenizer=shared_tokenizer(), exit_layer=1)
    assert other.scorer.fingerprint != deep_engine(exit_layer=1).scorer.fingerprint


def test_the_selection_says_so():
    assert deep_engine(exit_layer=2).select(TEXT, QUESTIONS[0], top_k=1).settings["exit_layer"] == 2
    assert "exit_layer" not in deep_engine().select(TEXT, QUESTIONS[0], top_k=1).settings


# ---------------------------------------------------------------------------------------------- what is refused
@pytest.mark.parametrize("layers", [0, -1, DEPTH + 1, 1.5, True, "2"])
def test_numbers_out_of_range(layers: Any):
    with pytest.raises(SettingError, match=f"exit_layer is {layers!r}; choose 1 to {DEPTH}"):
        deep_engine(exit_layer=layers)


def test_a_model_whose_layers_cannot_be_found():
    model = deepcopy(deep_model())
    model.model.layers = nn.Sequential(*model.model.layers)
    with pytest.raises(SettingError, match=r"LlamaForCausalLM cannot be left .*0 lists of 3 modules.*leave it out"):
        first_layers(model, 1)


def test_a_model_with_two_lists_that_could_be_its_layers():
    model = deepcopy(deep_model())
    model.extra = nn.ModuleList(nn.Linear(1, 1) for _ in range(DEPTH))
    with pytest.raises(SettingError, match=r"2 lists of 3 modules"):
        first_layers(model, 1)


def test_a_model_that_runs_its_layers_in_a_way_of_its_own():
    """A forward method bound to the model itself, as some tools set it, would run all layers whatever is cut."""
    model = deepcopy(deep_model())
    model.forward = model.forward
    with pytest.raises(SettingError, match="cut after 1 it runs 3 "):
        first_layers(model, 1)


def test_compiled_models_are_refused_or_cut_and_left_as_they_were():
    compiled = torch.compile(deepcopy(deep_model()), backend="eager")
    modules = dict(compiled.named_modules())
    with pytest.raises(SettingError, match="cannot be left after some of its layers"):
        first_layers(compiled, 1)
    assert dict(compiled.named_modules()) == modules
    in_place = deepcopy(deep_model())
    in_place.compile(backend="eager")
    torch.testing.assert_close(first_layers(in_place, 1)(ids_of()).logits, logit_lens(deep_model(), ids_of(), 1))


def test_a_model_that_fails_without_the_others():
    model = deepcopy(deep_model())

    def forward(self: Any, **kwargs: Any) -> Any:
        return self.model.layers[DEPTH - 1]

    model.__class__ = type("Own", (type(model),), {"forward": forward})
    with pytest.raises(SettingError, match=r"Own cannot be left .*fails without the others \(IndexError"):
        first_layers(model, 1)


# ---------------------------------------------------------------------------------------------- other backends
def test_a_server_has_no_layers():
    with pytest.raises(SettingError, match="exit_layer needs the model's layers, which a server does not show"):
        XL3M.from_pretrained("m", backend="openai", base_url="http://localhost:1", tokenizer="t", exit_layer=1)


def test_a_replica_leaves_early_too(tmp_path: Path):
    deep_model().save_pretrained(tmp_path)
    shared_tokenizer().save_pretrained(tmp_path)
    settings = {"exit_layer": 1, "dtype": "float32", "device": "cpu", "window": WINDOW}
    here = XL3M.from_pretrained(tmp_path, **settings).scorer
    assert ray_backend.Replica(str(tmp_path), settings).about()["fingerprint"] == here.fingerprint
