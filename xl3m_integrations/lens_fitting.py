"""A tuned lens from examples, by least squares (arXiv 2303.09435): one pass, no labels, no learning rate to choose.

The translator of a layer is the A that minimises, over the positions that measures look at,

    sum of |(h, 1) A - h_last / rms(h_last)|^2, and RIDGE x mean square of (h, 1) x |A|^2

where h is what the layer gives and h_last what the last one gives, whose size the norm behind it takes away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xl3m_integrations.backends.batching import packed
from xl3m_integrations.backends.early_exit import layers_of
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.backends.tuned_lens import TunedLens, sample_of
from xl3m_integrations.errors import InputError, SettingError

if TYPE_CHECKING:
    from xl3m_integrations.engine import XL3M

RIDGE = 1e-4  # times the sum over positions of the channels' mean square: it matters only where there are few examples
PAIRS_TOGETHER = 1_024  # examples that are sorted by length together


def fit_lens(xl3m: XL3M, examples: Iterable[tuple[str, str]], layers: Iterable[int] | None = None) -> TunedLens:
    """Fit a lens on a model, with one pass over some examples.

    Work: a forward pass over the examples, and 4 x hidden^2 FLOP for each layer and token of a question. Memory: 16 x
    hidden^2 bytes a layer.

    Args:
        xl3m: An engine on a local model.
        examples: (question, passage), as the engine is to read them: passages about as long as its segments, many of
            which answer the question, and others, best look-alikes of these, which do not. Answers are not needed.
            The bundled model's took 2,000; with fewer question tokens than the model has channels it is poor.
        layers: Behind how many layers there shall be a translator; None takes every number below all.

    Returns:
        The lens, for `XL3M.from_pretrained(…, exit_layer=N, lens=…)`.

    Raises:
        SettingError: The engine's scorer is no local model, has no such layers, or they cannot be found.
        InputError: There are no examples, or one does not fit the window.
    """
    backend = xl3m.scorer
    if not isinstance(backend, TransformersBackend):
        raise SettingError(f"A lens is fitted on a local model, but the scorer is a {type(backend).__name__}.")
    found = layers_of(backend.model)
    depth = len(found)
    wanted = sorted(set(range(1, depth) if layers is None else layers))
    if not wanted or not all(0 < layer < depth for layer in wanted):
        raise SettingError(f"layers is {wanted}; each must be from 1 to {depth - 1}, below all of the model's.")
    fits = {layer: _LeastSquares() for layer in wanted}
    with _noting([found[layer - 1] for layer in wanted] + [found[-1]]) as states:
        for ids, places in _batches(backend, examples):
            _read(backend.model, ids)
            *inputs, last = (each.flatten(0, 1)[places].float() for each in states)
            targets = last * torch.rsqrt(last.square().mean(-1, keepdim=True))
            for fit, given in zip(fits.values(), inputs, strict=True):
                fit.add(given, targets)
    if not fits[wanted[0]].positions:
        raise InputError("There are no examples to fit the lens on; give pairs of a question and a passage.")
    return TunedLens({layer: fit.solved() for layer, fit in fits.items()}, sample_of(backend.model))


class _LeastSquares:
    """The sums that a linear map with an added row is solved from."""

    def __init__(self) -> None:
        self.positions = 0
        self._squares: Tensor | float = 0.0
        self._products: Tensor | float = 0.0

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Rows [n, hidden] of both, float32."""
        extended = nn.functional.pad(inputs, (0, 1), value=1.0)
        self.positions += len(inputs)
        self._squares += (extended.T @ extended).cpu().double()
        self._products += (extended.T @ targets).cpu().double()

    def solved(self) -> Tensor:
        """[hidden + 1, hidden], float32."""
        assert isinstance(self._squares, Tensor)
        assert isinstance(self._products, Tensor)
        ridge = RIDGE * self._squares.diagonal().mean() * torch.eye(len(self._squares), dtype=torch.float64)
        found: Tensor = torch.linalg.solve(self._squares + ridge, self._products)
        return found.float()


@contextmanager
def _noting(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What each of the layers gave last, while the block runs."""
    given = [torch.empty(0)] * len(layers)

    def note(number: int) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            given[number] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [layer.register_forward_hook(note(number)) for number, layer in enumerate(layers)]
    try:
        yield given
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def _read(model: Any, ids: Tensor) -> None:
    model.base_model(input_ids=ids, use_cache=False)


def _batches(backend: TransformersBackend, examples: Iterable[tuple[str, str]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of ids [B, T], padded on the right, and which of the flattened positions measures look at."""
    pairs = iter(examples)
    while group := list(islice(pairs, PAIRS_TOGETHER)):
        rows, firsts = [], []
        for question, passage in group:
            prompt = backend.prompt(question)
            rows.append([*prompt.before, *backend.tokenizer.ids(passage), *prompt.after])
            firsts.append(len(rows[-1]) - len(prompt.after) + prompt.question.start - 1)
            if len(rows[-1]) > backend.window:
                raise InputError(
                    f"An example has {len(rows[-1])} tokens, template included, but the model's window is "
                    f"{backend.window} tokens; give passages about as long as the engine's segments."
                )
        for batch in packed([len(row) for row in rows], backend.batch_tokens, max_rows=len(rows), exact=False):
            longest = len(rows[batch[0]])
            ids = torch.tensor([rows[row] + [0] * (longest - len(rows[row])) for row in batch])
            looked_at = [range(firsts[row], len(rows[row])) for row in batch]
            places = [number * longest + place for number, own in enumerate(looked_at) for place in own]
            yield ids.to(backend.device), torch.tensor(places, device=backend.device)
