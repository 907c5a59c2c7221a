"""Tuned lens: what a middle layer gives, translated by a linear function into what the last layer would make of it.

The model's norm and head are trained on the last layer's states. Read from a middle layer's as they are (logit lens),
they miss what is already there in another basis; a translator fitted for the layer (arXiv 2303.08112) finds it. How it
is fitted: `lens_fitting`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xl3m_integrations.errors import SettingError
from xl3m_integrations.writing import replacing

FILE = "tuned_lens.safetensors"
SAMPLE = 256  # numbers of the embeddings, by which a lens knows its model


@dataclass(frozen=True, slots=True, eq=False)
class TunedLens:
    """Translators for some layers of one model; see `fit_lens`.

    Attributes:
        translators: Number of layers before it -> A, [hidden + 1, hidden], float32; the last row is added.
        embeddings: [SAMPLE], numbers of the model's input embeddings, by which it is recognised.
    """

    translators: Mapping[int, Tensor]
    embeddings: Tensor

    def save(self, path: str | Path) -> None:
        """Write it as safetensors, whole or not at all. As `tuned_lens.safetensors` in the model's folder it is found.

        Args:
            path: The file, or the folder to write a file of that name in.

        Raises:
            SettingError: It cannot be written there.
        """
        file = _file(path)
        tensors = {f"layers.{layer}": translator.contiguous() for layer, translator in self.translators.items()}
        try:
            with replacing(file) as beside:
                save_file({**tensors, "embeddings": self.embeddings}, beside)
        except (OSError, SafetensorError) as error:
            raise SettingError(f"The lens cannot be written to {str(file)!r}: {error}; name another file.") from error

    @classmethod
    def load(cls, path: str | Path) -> TunedLens:
        """What `save` wrote.

        Raises:
            SettingError: There is no such file, or it is no lens.
        """
        file = _file(path)
        try:
            tensors = load_file(file)
            embeddings = tensors.pop("embeddings")
            return cls({int(name.removeprefix("layers.")): each for name, each in tensors.items()}, embeddings)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise SettingError(
                f"lens: {str(file)!r} cannot be read as a tuned lens ({type(error).__name__}: {error}); give a file "
                "that TunedLens.save has written, or leave it out."
            ) from error

    def digest(self, layer: int) -> str:
        """A short string that changes with the layer's translator."""
        return hashlib.blake2b(self.translators[layer].numpy().tobytes(), digest_size=8).hexdigest()

    def behind(self, layer: nn.Module, number: int, model: Any) -> nn.Module:
        """A decoder layer that gives the translation of what `layer` gives.

        Args:
            layer: The layer.
            number: How many layers run up to it, itself included.
            model: The model it is of.

        Raises:
            SettingError: The lens was fitted on another model, or not for this layer.
        """
        if number not in self.translators:
            known = ", ".join(map(str, sorted(self.translators)))
            raise SettingError(f"lens: it has no translator behind layer {number}, only behind {known}; fit one.")
        sample = sample_of(model)
        scale = sample.abs().max()
        if sample.shape != self.embeddings.shape or (sample - self.embeddings).abs().max() > 0.01 * scale:
            raise SettingError(
                f"lens: it was fitted on another model than this {type(model).__name__}; fit one on it, or leave it "
                f"out: where it was found in the model's folder, remove {FILE}."
            )
        return Translated(layer, self.translators[number].to(model.device, model.dtype))


class Translated(nn.Module):
    """A decoder layer and the translator behind it, called like the layer.

    Args:
        layer: The layer.
        translator: [hidden + 1, hidden].
    """

    def __init__(self, layer: nn.Module, translator: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("translator", translator[:-1].T.contiguous())
        self.register_buffer("added", translator[-1].contiguous())

    def forward(self, *states: Any, **options: Any) -> Any:
        """The arguments are those of the layer; of a tuple the hidden states come first."""
        given = self.layer(*states, **options)
        if not isinstance(given, tuple):
            return nn.functional.linear(given, self.translator, self.added)
        return nn.functional.linear(given[0], self.translator, self.added), *given[1:]

    def __getattr__(self, name: str) -> Any:
        """Models ask some of their layers for what kind they are."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


def lens_for(exit_layer: int | None, lens: TunedLens | str | Path | None, name: str | Path | None) -> TunedLens | None:
    """The lens to leave a model through: the one given, else what its folder has for that layer; None for neither.

    Args:
        exit_layer: After how many layers; None runs all.
        lens: A lens or its file.
        name: The model's folder or hub id; None where it was loaded elsewhere.

    Raises:
        SettingError: A lens is given without a layer, or cannot be read.
    """
    if lens is not None:
        if exit_layer is None:
            raise SettingError("lens is given without exit_layer; say after how many layers it is looked through.")
        return lens if isinstance(lens, TunedLens) else TunedLens.load(lens)
    if exit_layer is None or name is None or not (file := Path(name) / FILE).is_file():
        return None
    found = TunedLens.load(file)
    return found if exit_layer in found.translators else None


def sample_of(model: Any) -> Tensor:
    """[SAMPLE], numbers of a model's input embeddings, float32."""
    numbers: Tensor = model.get_input_embeddings().weight.detach().flatten()
    return numbers[:: max(1, len(numbers) // SAMPLE)][:SAMPLE].float().cpu().contiguous()


def _file(path: str | Path) -> Path:
    return Path(path) / FILE if Path(path).is_dir() else Path(path)
