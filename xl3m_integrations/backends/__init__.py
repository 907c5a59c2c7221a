"""Models behind two protocols: `Scorer` gives evidence about segments, `Generator` answers from a context.

The one place where a backend is looked up by its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

BACKENDS = ("transformers", "openai", "ray")


def make_backend(backend: str, name: str | Path | None, arguments: dict[str, Any], options: dict[str, Any]) -> Any:
    """A scorer and generator.

    Args:
        backend: One of `BACKENDS`.
        name: Hub id or folder; for `openai` the model's name on the server.
        arguments: Those of `XL3M.from_pretrained` that concern the model, None where not given.
        options: Further ones, which this backend alone knows.

    Raises:
        SettingError: There is no such backend, or it does not take one of the arguments.
        MissingExtraError: The backend's extra is not installed.
        ModelLoadError: There is no such model.
    """
    from xl3m_integrations.errors import SettingError

    if backend not in BACKENDS:
        raise SettingError(f"backend is {backend!r}; choose one of {', '.join(BACKENDS)}.")
    given = {key: value for key, value in arguments.items() if value is not None}
    makers = {"transformers": _transformers, "openai": _openai, "ray": _ray}
    try:
        return makers[backend](name, **given, **options)
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        _, _, named = str(error).partition("keyword argument ")
        raise SettingError(
            f"backend={backend!r} does not take {named}; leave it out, or choose the backend that it is for."
        ) from error


def _transformers(
    name: str | Path | None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    device: Any = None,
    dtype: Any = None,
    attn_implementation: str | None = None,
    quantization_config: Any = None,
    trust_remote_code: bool = False,
    template: str | None = None,
    window: int | None = None,
    batch_tokens: int | None = None,
    exit_layer: int | None = None,
    lens: Any = None,
    compile: bool = False,
    model_options: dict[str, Any] | None = None,
) -> Any:
    from xl3m_integrations.backends.loading import load
    from xl3m_integrations.backends.transformers import TransformersBackend
    from xl3m_integrations.backends.tuned_lens import lens_for
    from xl3m_integrations.errors import SettingError

    if (name is None) == (model is None) or (model is None) != (tokenizer is None):
        raise SettingError("Pass either a model's name, or model= and tokenizer= already loaded.")
    if name is not None:
        model, tokenizer = load(
            name,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            quantization_config=quantization_config,
            trust_remote_code=trust_remote_code,
            **(model_options or {}),
        )
    return TransformersBackend(
        model,
        tokenizer,
        template=template,
        window=window,
        batch_tokens=batch_tokens,
        exit_layer=exit_layer,
        lens=lens_for(exit_layer, lens, name),
        compile=compile,
    )


def _openai(
    name: str | Path | None, *, tokenizer: Any = None, exit_layer: int | None = None, lens: Any = None, **settings: Any
) -> Any:
    from xl3m_integrations.backends.loading import load_tokenizer
    from xl3m_integrations.backends.openai import OpenAIBackend
    from xl3m_integrations.errors import SettingError

    if exit_layer is not None or lens is not None:
        raise SettingError("exit_layer needs the model's layers, which a server does not show; leave it out.")
    if name is None:
        raise SettingError("backend='openai' needs the model's name on the server: the first argument, or --model.")
    return OpenAIBackend(str(name), load_tokenizer(name if tokenizer is None else tokenizer), **settings)


def _ray(name: str | Path | None, *, exit_layer: int | None = None, lens: Any = None, **settings: Any) -> Any:
    from xl3m_integrations.backends.ray import RayBackend
    from xl3m_integrations.backends.tuned_lens import lens_for
    from xl3m_integrations.errors import SettingError

    if name is None:
        raise SettingError("backend='ray' needs a hub id or a folder that every machine sees: each loads its own copy.")
    if lens is not None:  # a file that this machine sees
        settings["lens"] = lens_for(exit_layer, lens, name)
    return RayBackend(name, exit_layer=exit_layer, **settings)
