"""Decoder layers of Llama, Mistral and Qwen2 that go over memory less often, for reading with small models on CPUs.

Where a model is small and its products are fast (bfloat16 with matrix units), half of a forward pass on a CPU is what
stands between them, each step of which reads and writes a number per token and channel. Here

- activation, gating, bias and residual are the products' own last step, which oneDNN computes before it writes;
- queries, keys and values are one product, which gives queries and keys a second time with their halves exchanged (that
  is linear too: P(Wx) = (PW)x), so that rotary embedding takes two steps instead of seven;
- the gains of the norms are part of the weights behind them, and a norm computes in place.

The numbers are those of the layers up to rounding. What it costs are 2 x hidden x (query + key channels) more FLOP per
token, and a copy of some of the weights.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import SiLUActivation
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

_KNOWN = (LlamaDecoderLayer, MistralDecoderLayer, Qwen2DecoderLayer)  # one computation under three names
_ATTENTION = "sdpa"


def with_fused_layers(module: nn.Module) -> nn.Module:
    """The module with its layers fused, those that are known; itself where there are none.

    Args:
        module: A model on the CPU, for inference. It is left as it is, and shares its parameters with the result but
            for those of the layers, which are taken as they are now.
    """
    if "forward" in module.__dict__:  # somebody's own, which may call any part of it
        return module
    if _is_known(module):
        return FusedLayer(module)
    children = {name: with_fused_layers(child) for name, child in module.named_children()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    twin = copy(module)
    twin.__dict__["_modules"] = module._modules | children
    return twin


def _is_known(layer: Any) -> bool:
    """Whether a layer is one of those, and nothing in it is of another kind: quantised, adapted or hooked."""
    if type(layer) not in _KNOWN or layer.self_attn.config._attn_implementation != _ATTENTION:
        return False
    attention, mlp = layer.self_attn, layer.mlp
    products = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    products += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return (
        all(type(product) is nn.Linear and type(product.weight) is nn.Parameter for product in products)
        and isinstance(mlp.act_fn, (nn.SiLU, SiLUActivation))
        and not any(
            module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
            for module in layer.modules()
        )
        and _products_fuse(attention.q_proj.weight.dtype)
    )


@cache
def _products_fuse(dtype: torch.dtype) -> bool:
    """Whether this torch and processor compute products of a dtype with a last step; tried on a few numbers.

    The operators are those that torch's own compiler calls, without a public name.
    """
    tokens, weight, others = (torch.linspace(-1, 1, size).view(-1, 8) for size in (24, 64, 24))
    bias = weight[0]
    plain = nn.functional.linear(tokens, weight, bias)
    wanted = (plain, nn.functional.silu(plain), plain * others, plain + others)
    tokens, others, product = tokens.to(dtype), others.to(dtype), _Product(weight.to(dtype), bias.to(dtype))
    try:
        found = product(tokens), product.swish(tokens), product.times(tokens, others), product.added(tokens, others)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return all(torch.allclose(a.float(), b, rtol=0.05, atol=0.05) for a, b in zip(found, wanted, strict=True))


@dataclass(frozen=True, slots=True)
class _Product:
    """Wx + b with what is done to it.

    Attributes:
        weight: [out, in].
        bias: [out], or None.
    """

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, linear: nn.Linear) -> _Product:
        """As the layer has it."""
        return cls(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())

    @classmethod
    def behind(cls, norm: Any, *linear: nn.Linear) -> _Product:
        """Several as one, of what a norm gives before it is multiplied by its gains."""
        own = [cls.of(each) for each in linear]
        gains, dtype = norm.weight.detach().float(), own[0].weight.dtype
        weight = torch.cat([each.weight.float() * gains for each in own]).to(dtype)
        if all(each.bias is None for each in own):
            return cls(weight, None)
        biases = [weight.new_zeros(len(each.weight)) if each.bias is None else each.bias for each in own]
        return cls(weight, torch.cat(biases))

    def with_halves_exchanged(self, heads: int, width: int) -> _Product:
        """With the first `heads` of `width` channels a second time, (-b, a) of (a, b): transformers' rotate_half."""
        turned = heads * width

        def exchanged(rows: Tensor) -> Tensor:
            """The rows, and behind the first `turned` of them these with their halves exchanged."""
            first, second = rows[:turned].view(heads, 2, width // 2, -1).unbind(1)
            again = torch.stack([-second, first], 1).view_as(rows[:turned])
            return torch.cat([rows[:turned], again, rows[turned:]])

        return _Product(exchanged(self.weight), None if self.bias is None else exchanged(self.bias))

    def __call__(self, tokens: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return self._then("none", tokens)

    def swish(self, tokens: Tensor) -> Tensor:
        """What SiLU makes of the product."""
        return self._then("swish", tokens)

    def times(self, tokens: Tensor, others: Tensor) -> Tensor:
        """The product, each number times that of `others`, [..., out]."""
        return self._with("mul", tokens, others)

    def added(self, tokens: Tensor, others: Tensor) -> Tensor:
        """The product, each number and that of `others`, [..., out]."""
        return self._with("add", tokens, others)

    def _then(self, step: str, tokens: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(tokens, self.weight, self.bias, step, [], "")
        return product

    def _with(self, step: str, tokens: Tensor, others: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise.binary(tokens, others, self.weight, self.bias, step)
        return product


class FusedLayer(nn.Module):
    """One layer, called like the original.

    Args:
        layer: The original.
    """

    attention: Any

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self.__dict__["attention"] = attention  # attention functions ask it for settings; it is no part of this one
        self.width = attention.head_dim
        self.queries, self.keys = (len(each.weight) // self.width for each in (attention.q_proj, attention.k_proj))
        asked = _Product.behind(layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj)
        self.attend = asked.with_halves_exchanged(self.queries + self.keys, self.width)
        self.output = _Product.of(attention.o_proj)
        self.gate = _Product.behind(layer.post_attention_layernorm, mlp.gate_proj)
        self.up = _Product.behind(layer.post_attention_layernorm, mlp.up_proj)
        self.down = _Product.of(mlp.down_proj)
        self.epsilons = layer.input_layernorm.variance_epsilon, layer.post_attention_layernorm.variance_epsilon

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> Tensor:
        """[B, L, hidden] -> [B, L, hidden]; the arguments are those of the original."""
        assert position_embeddings is not None
        attention = self.attention
        cos, sin = (each[:, :, None] for each in position_embeddings)
        heads = self.attend(_normed(hidden_states, self.epsilons[0]))
        heads = heads.view(*hidden_states.shape[:2], -1, self.width)
        turned = self.queries + self.keys
        plain, exchanged = heads[:, :, :turned], heads[:, :, turned : 2 * turned]
        plain.mul_(cos).addcmul_(exchanged, sin)
        heads = heads.transpose(1, 2)  # [B, heads, L, width]
        queries, keys, values = heads[:, : self.queries], heads[:, self.queries : turned], heads[:, 2 * turned :]
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, attention.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS[_ATTENTION]
        found, _ = attend(attention, queries, keys, values, attention_mask, scaling=attention.scaling, **options)
        residual = self.output.added(found.flatten(2), hidden_states)
        normed = _normed(residual, self.epsilons[1])
        return self.down.added(self.up.times(normed, self.gate.swish(normed)), residual)


def _normed(tokens: Tensor, epsilon: float) -> Tensor:
    """[..., hidden] over their root mean square, computed in float32."""
    exact = tokens.to(torch.float32, copy=True)
    norm = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
    return exact.mul_(torch.rsqrt(norm.square() / exact.shape[-1] + epsilon)).to(tokens.dtype)
