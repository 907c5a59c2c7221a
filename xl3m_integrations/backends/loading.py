"""Hub id or folder -> loaded model and tokenizer, with defaults that suit the machine and errors that help."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from xl3m_integrations.errors import ModelLoadError, SettingError

HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")  # they concern every file, not the weights alone
# What tells whether oneDNN, with which torch multiplies on CPUs, has fast products of a type here.
_PRODUCTS = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the first of cuda, mps, cpu that is there.

    Raises:
        SettingError: The name is not a device that this machine has.
    """
    if device is None or device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(name)
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(
            f"device is {str(device)!r}, which cannot be used here: {reason}. Try 'cpu', or None."
        ) from None
    return chosen


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, or bfloat16 where the hardware computes in it, else float32 (cuda: float16).

    Raises:
        SettingError: No floating-point dtype has that name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None or dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.bfloat16 if device.type == "cpu" and cpu_computes_bfloat16() else torch.float32
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise SettingError(f"dtype is {dtype!r}; choose 'auto', 'bfloat16', 'float16' or 'float32'.")
    return found


def cpu_computes_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself."""
    return _has_fast_products(torch.bfloat16) and torch.cpu._is_avx512_bf16_supported()


def warn_of_slow_numbers(dtype: torch.dtype, device: torch.device) -> None:
    """Warn where the model is on a CPU that has no fast products of its type."""
    if device.type == "cpu" and dtype in _PRODUCTS and not _has_fast_products(dtype):
        name = str(dtype).removeprefix("torch.")
        warnings.warn(
            f"The model is in {name}, which this processor has no fast products of. In float32 it reads several times "
            "as fast, for twice the memory: load it with dtype='float32', or call model.float().",
            stacklevel=3,
        )


def _has_fast_products(dtype: torch.dtype) -> bool:
    """Whether the CPU has fast products of a 16-bit type; where it has not, float32 was six times as fast."""
    supported = getattr(torch.ops.mkldnn, _PRODUCTS[dtype], None)
    return bool(supported and supported())


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    quantization_config: Any = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> tuple[Any, Any]:
    """Load model and tokenizer; safetensors only.

    Raises:
        ModelLoadError: `name` does not exist or holds no causal language model in safetensors with a tokenizer.
        SettingError: There is no such device or dtype.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    place = pick_device(device)
    weights = pick_dtype(dtype, place)
    hub = {name: options[name] for name in HUB_OPTIONS if name in options}
    settings = {"trust_remote_code": trust_remote_code, **options}
    if quantization_config is not None:
        settings |= {"quantization_config": quantization_config, "device_map": {"": str(place)}}
    if attn_implementation is not None:
        settings["attn_implementation"] = attn_implementation
    _require_folder(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, **hub)
        if not trust_remote_code:
            _require_causal(config, name)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code, **hub)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=weights, use_safetensors=True, **settings)
    except ModelLoadError:
        raise
    except Exception as error:
        raise ModelLoadError(
            f"Cannot load a causal language model from {str(name)!r}: {_first_line(error)} Give a hub id or a folder "
            "with config.json, safetensors weights and a tokenizer."
        ) from error
    return (model if quantization_config is not None else model.to(place)), tokenizer


def load_tokenizer(tokenizer: Any) -> Any:
    """The tokenizer of a hub id or folder; a loaded one is returned as it is.

    Raises:
        ModelLoadError: There is none.
    """
    from transformers import AutoTokenizer

    if not isinstance(tokenizer, (str, Path)):
        return tokenizer
    try:
        return AutoTokenizer.from_pretrained(tokenizer)
    except Exception as error:
        raise ModelLoadError(
            f"Cannot load a tokenizer from {str(tokenizer)!r}: {_first_line(error)} Pass tokenizer=, the hub id or "
            "folder of the model's tokenizer."
        ) from error


def _require_folder(name: str | Path) -> None:
    text = str(name)
    looks_local = isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1 or "\\" in text
    path = Path(text)
    if looks_local and not path.is_dir():
        kind = "is a file" if path.exists() else "does not exist"
        raise ModelLoadError(f"The model folder {text!r} {kind}; give a folder with config.json, or a hub id.")
    if path.is_dir() and not (path / "config.json").exists():
        raise ModelLoadError(f"The folder {text!r} holds no config.json, so no model; give a saved model's folder.")


def _require_causal(config: Any, name: str | Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    saved = config.architectures or []
    known = set(CAUSAL.values())
    if config.model_type not in CAUSAL or (saved and not known & set(saved)):
        held = ", ".join(saved) or config.model_type
        raise ModelLoadError(
            f"{str(name)!r} holds {held}, which is no causal language model; XL3M needs one that predicts "
            "the next token (…ForCausalLM)."
        )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if line.endswith(".") else line + "."
