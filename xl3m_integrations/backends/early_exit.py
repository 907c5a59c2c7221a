"""Early exit: a model cut behind one of its middle layers, read through its own final norm and head (logit lens).

The cut model is made of shallow copies of the modules around the layers; the layers, norm, embeddings and head are the
model's own, so nothing is loaded twice and the caller's model stays as it is. Work of a token falls from all layers to
the first few. What these know of the answer is what the head, trained on the last layer, happens to read from them,
or what a tuned lens translates for it: see `tuned_lens`. Selective-ICR (arXiv 2602.22591) finds the signal of relevance
in the middle layers of large models.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from xl3m_integrations.errors import SettingError

if TYPE_CHECKING:
    from xl3m_integrations.backends.tuned_lens import TunedLens


def first_layers(model: Any, count: int, lens: TunedLens | None = None) -> Any:
    """The model without the decoder layers behind the first `count`.

    The layers are found by their number, not by the architecture's name, and a few tokens are read to see that exactly
    the wanted ones run.

    Args:
        model: A causal language model. It is left as it is, and shares its parameters with the result.
        count: Layers that are to run; all of them give the model itself.
        lens: Translates what the last of them gives; None leaves it as it is.

    Raises:
        SettingError: The model has not so many layers, they cannot be found or cut, or the lens is not for them.
    """
    config = model.config.get_text_config()
    depth = getattr(config, "num_hidden_layers", None)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1 or (depth is not None and count > depth):
        raise SettingError(f"exit_layer is {count!r}; choose 1 to {depth}, the number of layers, or None for all.")
    if count == depth:
        return model
    path = _path_of_layers(model, depth)
    layers = list(model.get_submodule(path))
    left = layers[:count] if lens is None else [*layers[: count - 1], lens.behind(layers[count - 1], count, model)]
    try:
        cut = _with(left, model, path.split("."), config, _shortened(config, count))
        ran = _that_run(cut, layers)
    except Exception as error:
        raise _refusal(model, f"it fails without the others ({type(error).__name__}: {error})") from error
    if ran != layers[:count]:
        raise _refusal(
            model, f"cut after {count} it runs {len(ran)} (compiled models do so, and those spread over devices)"
        )
    return cut


def layers_of(model: Any) -> list[nn.Module]:
    """The model's decoder layers, the first ones first.

    Raises:
        SettingError: They cannot be found.
    """
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    return list(model.get_submodule(_path_of_layers(model, depth)))


def _path_of_layers(model: Any, depth: int | None) -> str:
    """Name of the one outermost list of `depth` modules."""
    named = [
        name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    outermost: list[str] = [name for name in named if not any(name.startswith(f"{other}.") for other in named)]
    if len(outermost) != 1:
        raise _refusal(model, f"{len(outermost)} lists of {depth} modules could be its layers")
    return outermost[0]


def _shortened(config: Any, count: int) -> Any:
    short = copy(config)
    short.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        short.layer_types = config.layer_types[:count]
    short.output_hidden_states = False  # asked for, transformers would hang hooks on the layers, which are shared
    return short


def _with(layers: list[nn.Module], module: Any, path: list[str], config: Any, short: Any) -> Any:
    """A shallow copy of `module` in which the list at `path` holds these layers."""
    twin = copy(module)
    own = twin.__dict__  # written to directly: a compiled module hands on what is set on it to the caller's
    if path:
        child = _with(layers, getattr(module, path[0]), path[1:], config, short)
        own["_modules"] = module._modules | {path[0]: child}
    else:
        own["_modules"] = {str(number): layer for number, layer in enumerate(layers)}
    if own.get("config") is config:
        own["config"] = short
    return twin


@torch.inference_mode()
def _that_run(model: Any, layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Which of `layers` a forward pass of `model` runs, in order."""
    known, own, ran = set(layers), threading.get_ident(), list[nn.Module]()

    def note(module: nn.Module, _: Any) -> None:
        if threading.get_ident() == own and module in known:
            ran.append(module)

    ids = torch.arange(3, 7, device=next(model.parameters()).device)[None]
    with register_module_forward_pre_hook(note):  # for all modules, and not on the caller's
        model(input_ids=ids, use_cache=False)
    return ran


def _refusal(model: Any, why: str) -> SettingError:
    return SettingError(
        f"exit_layer: {type(model).__name__} cannot be left after some of its layers, since {why}; leave it out."
    )
