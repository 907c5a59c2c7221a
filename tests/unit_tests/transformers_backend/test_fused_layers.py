"""Fused layers compute what the layers do, take none that is not what they know, and leave the model as it is."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from models import (
    ARCHITECTURES,
    MEASURES,
    QUESTION,
    TEXT,
    WINDOW,
    assert_same,
    make_backend,
    make_model,
    shared_model,
    shared_tokenizer,
)
from torch import nn

from xl3m_integrations import XL3M
from xl3m_integrations.backends import fused_layers, transformers
from xl3m_integrations.backends.fused_layers import FusedLayer, with_fused_layers
from xl3m_integrations.backends.transformers import TransformersBackend

KNOWN = ("llama", "mistral", "qwen2")
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in KNOWN},
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with wide heads": ("llama", {"head_dim": 24}),
    "qwen2 with as many keys as queries": ("qwen2", {"num_key_value_heads": 4}),
    "qwen2 with a sliding window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    ),
}
pytestmark = pytest.mark.skipif(
    not fused_layers._products_fuse(torch.float32), reason="this torch has no products with a last step"
)


def fused_in(model: nn.Module) -> int:
    return sum(isinstance(module, FusedLayer) for module in model.modules())


def ids_of(rows: int, tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, 600, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def both(variant: str) -> tuple[Any, Any]:
    """A model, and it with all of its two layers fused."""
    architecture, changes = VARIANTS[variant]
    model = make_model(architecture, **changes)
    fused = with_fused_layers(model)
    assert fused_in(fused) == 2
    return model, fused


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_the_numbers_are_the_models(variant: str):
    model, fused = both(variant)
    for rows, tokens in ((1, 1), (3, 40), (2, WINDOW)):
        ids = ids_of(rows, tokens)
        torch.testing.assert_close(fused(ids).logits, model(ids).logits, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_it_continues_from_keys_and_values_of_either(variant: str):
    model, fused = both(variant)
    ids, later = ids_of(3, 30), ids_of(3, 7, seed=2)
    wanted = model(torch.cat([ids, later], 1)).logits[:, -7:]
    for first in (model, fused):
        past = first(ids, use_cache=True).past_key_values
        torch.testing.assert_close(fused(later, past_key_values=past).logits, wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("architecture", KNOWN)
@torch.inference_mode()
def test_masks_and_places_are_those_given(architecture: str):
    model = shared_model(architecture)
    ids, mask = ids_of(2, 20), torch.ones(2, 20, dtype=torch.long)
    mask[0, :6] = 0
    places = torch.arange(20).flip(0).expand(2, 20)
    fused, own = (
        each(ids, attention_mask=mask, position_ids=places).logits[:, 6:] for each in (with_fused_layers(model), model)
    )
    torch.testing.assert_close(fused, own, atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_bfloat16_is_no_further_from_the_truth_than_the_models_own():
    model = make_model("llama")
    ids = ids_of(8, 60)
    truth = model(ids).logits
    rounded = deepcopy(model).bfloat16()
    if not fused_layers._products_fuse(torch.bfloat16):
        pytest.skip("this processor has none in bfloat16")
    plain, fused = ((each(ids).logits - truth).abs().mean() for each in (rounded, with_fused_layers(rounded)))
    assert fused < 1.25 * plain


def test_the_model_stays_as_it_is():
    model = make_model("llama", attention_bias=True)
    before, modules = deepcopy(model.state_dict()), dict(model.named_modules())
    fused = with_fused_layers(model)
    with torch.inference_mode():
        fused(ids_of(2, 20))
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert fused.get_input_embeddings() is model.get_input_embeddings()
    assert fused.get_output_embeddings() is model.get_output_embeddings()


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - set(KNOWN)))
def test_other_architectures_are_read_as_they_are(architecture: str):
    model = shared_model(architecture)
    assert with_fused_layers(model) is model


class Adapted(nn.Linear):
    """A product that does more, as adapters and quantised ones do."""


def adapted(model: Any) -> None:
    model.model.layers[0].self_attn.q_proj.__class__ = Adapted


def hooked(model: Any) -> None:
    model.model.layers[0].mlp.register_forward_hook(lambda *_: None)


def patched(model: Any) -> None:
    model.model.layers[0].mlp.forward = model.model.layers[0].mlp.forward


def activated(model: Any) -> None:
    model.model.layers[0].mlp.act_fn = nn.GELU()


@pytest.mark.parametrize("change", [adapted, hooked, patched, activated])
def test_a_layer_with_anything_of_its_own_is_read_as_it_is(change: Any):
    model = make_model("llama")
    change(model)
    fused = with_fused_layers(model)
    assert fused.model.layers[0] is model.model.layers[0]
    assert fused_in(fused) == 1
    with torch.inference_mode():
        torch.testing.assert_close(fused(ids_of(2, 9)).logits, model(ids_of(2, 9)).logits, atol=1e-4, rtol=1e-5)


def test_a_model_with_other_attention_or_a_pass_of_its_own_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch):
    eager = make_model("llama", attn_implementation="eager")
    assert with_fused_layers(eager) is eager
    own = make_model("llama")
    own.forward = own.forward
    assert with_fused_layers(own) is own
    monkeypatch.setattr(fused_layers, "_products_fuse", lambda dtype: False)
    assert with_fused_layers(shared_model()) is shared_model()


def test_small_models_in_bfloat16_are_scored_with_them(monkeypatch: pytest.MonkeyPatch):
    assert fused_in(make_backend("llama").scoring_model) == 0
    if not fused_layers._products_fuse(torch.bfloat16):
        pytest.skip("this processor has none in bfloat16")
    model, tokenizer = make_model("llama").bfloat16(), shared_tokenizer()
    assert fused_in(TransformersBackend(model, tokenizer).scoring_model) == 2
    assert fused_in(TransformersBackend(model, tokenizer, exit_layer=1).scoring_model) == 1
    assert fused_in(TransformersBackend(model, tokenizer).model) == 0
    monkeypatch.setattr(transformers, "LARGE", 1)
    assert fused_in(TransformersBackend(model, tokenizer).scoring_model) == 0


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("architecture", KNOWN)
def test_a_selection_is_that_of_the_layers_themselves(architecture: str, measure: str, monkeypatch: pytest.MonkeyPatch):
    """First looks, second looks, an index asked again, and several questions that share a pass."""
    plain = XL3M(make_backend(architecture))
    monkeypatch.setattr(transformers, "FUSED", (torch.float32,))
    fused = XL3M(make_backend(architecture))
    assert fused_in(fused.scorer.scoring_model) == 2
    assert fused.scorer.sharing is plain.scorer.sharing
    questions = [QUESTION, "Who?", "And why did the ferry leave so early?"]
    expected = [plain.select(TEXT, question, measure=measure) for question in questions]
    index = fused.index(TEXT)
    for found in (
        [fused.select(TEXT, question, measure=measure) for question in questions],
        [index.select(question, measure=measure) for question in questions],
        fused.select_many(TEXT, questions, measure=measure),
    ):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
