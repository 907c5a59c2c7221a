"""What a model's evidence depends on, as one short string: weights, configuration, tokenizer, template, dtype.

Cheap even for a large model: the weights are read once, at memory speed. Each tensor enters with its name, shape and
dtype, the exact sum of its bits read as integers (which any changed number changes) and a sample of its numbers (which
moved ones change). Left out on purpose, since it moves results by rounding alone: device, kernels, batch size. Left out
because nothing here can see them: weights that are offloaded to disk ("meta" tensors), of which name and shape enter.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from xl3m_integrations.prompts import Template

SAMPLE = 1_024  # numbers of each tensor
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache")  # how it was loaded


@torch.inference_mode()
def fingerprint_of(model: Any, tokenizer: Any, template: Template) -> str:
    """The fingerprint of a loaded causal language model with its tokenizer and template."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in _VOLATILE}
    digest = hashlib.blake2b(digest_size=16)
    for part in (
        type(model).__name__,
        json.dumps(config, sort_keys=True, default=str),
        tokenizer.backend_tokenizer.to_str(),
        repr([tokenizer.bos_token, tokenizer.eos_token, *tokenizer.all_special_tokens]),
        repr(template),
    ):
        digest.update(hashlib.blake2b(part.encode()).digest())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(hashlib.blake2b(f"{name} {_described(tensor)}".encode()).digest())
    return digest.hexdigest()


def _described(tensor: Any) -> str:
    if not isinstance(tensor, Tensor):  # what a quantiser keeps beside its weights
        return repr(tensor)
    if tensor.is_meta or not tensor.numel():
        return f"{tensor.dtype} {tuple(tensor.shape)}"
    whole = tensor.to(torch.int8) if tensor.dtype == torch.bool else tensor
    flat = whole.contiguous().view(_INTEGERS[whole.element_size()]).reshape(-1)
    sample = flat[:: max(1, len(flat) // SAMPLE)].tolist()
    return f"{tensor.dtype} {tuple(tensor.shape)} {int(flat.sum(dtype=torch.int64))} {sample}"
