"""From a folder, or loaded objects, to an engine; and every way in which that goes wrong."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from models import QUESTION, WINDOW, make_backend, make_model, make_tokenizer, shared_model, shared_tokenizer, text_of
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

from xl3m_integrations import XL3M, ModelLoadError, SettingError, XL3MError
from xl3m_integrations.backends.loading import load, pick_device, pick_dtype
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.bundled.tokenizer import CHAT_TEMPLATE


# ---------------------------------------------------------------------------------------------- what loads
@pytest.mark.parametrize("kind", [str, Path])
def test_a_saved_model_is_the_model_that_was_saved(saved_model: Path, kind: Any):
    text = text_of(2_000)
    loaded = XL3M.from_pretrained(kind(saved_model), dtype="float32", device="cpu").select(text, QUESTION)
    expected = XL3M(make_backend(), make_backend()).select(text, QUESTION)
    assert loaded.scores == pytest.approx(expected.scores, abs=1e-4)
    assert [s.text for s in loaded.segments] == [s.text for s in expected.segments]


def test_window_and_end_come_from_the_folder(saved_model: Path):
    xl3m = XL3M.from_pretrained(saved_model, dtype="float32", device="cpu")
    assert xl3m.window == WINDOW
    assert xl3m.reader is xl3m.scorer
    assert XL3M.from_pretrained(saved_model, dtype="float32", window=128).window == 128


def test_a_relative_folder(saved_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(saved_model.parent)
    assert XL3M.from_pretrained(f"./{saved_model.name}", dtype="float32").window == WINDOW
    assert XL3M.from_pretrained(saved_model.name, dtype="float32").window == WINDOW


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", torch.float16])
def test_the_dtype_asked_for_is_the_dtype_loaded(saved_model: Path, dtype: Any):
    model, _ = load(saved_model, dtype=dtype, device="cpu")
    assert model.dtype is (getattr(torch, dtype) if isinstance(dtype, str) else dtype)


def test_a_saved_chat_template_is_used(tmp_path: Path):
    make_model().save_pretrained(tmp_path)
    make_tokenizer(chat=CHAT_TEMPLATE).save_pretrained(tmp_path)
    backend: Any = XL3M.from_pretrained(tmp_path, dtype="float32").scorer
    assert backend.template.before == "<|bos|><|user|>"
    assert backend.template.after == "<|assistant|>"


def test_loaded_objects_are_accepted_and_used():
    model, tokenizer = shared_model(), shared_tokenizer()
    xl3m = XL3M.from_pretrained(model=model, tokenizer=tokenizer)
    backend: Any = xl3m.scorer
    assert backend.model is model
    assert xl3m.select(text_of(1_000), QUESTION).segments


def test_options_reach_model_tokenizer_and_configuration(saved_model: Path, monkeypatch: pytest.MonkeyPatch):
    """A revision whose weights are loaded with another revision's tokenizer answers nonsense; a gated model's token
    is needed from the first file on."""
    seen: dict[str, dict[str, Any]] = {}
    for kind in (AutoConfig, AutoTokenizer, AutoModelForCausalLM):
        plain = kind.from_pretrained

        def noted(name: Any, *, kind: Any = kind, plain: Any = plain, **options: Any) -> Any:
            seen[kind.__name__] = options
            return plain(name, **options)

        monkeypatch.setattr(kind, "from_pretrained", noted)
    options = {"revision": "v2", "token": "t", "cache_dir": "c", "local_files_only": True}
    XL3M.from_pretrained(saved_model, dtype="float32", model_options={**options, "low_cpu_mem_usage": True})
    for kind in ("AutoConfig", "AutoTokenizer", "AutoModelForCausalLM"):
        assert options.items() <= seen[kind].items()
        assert seen[kind]["trust_remote_code"] is False
    assert seen["AutoModelForCausalLM"]["use_safetensors"] is True
    assert "low_cpu_mem_usage" not in seen["AutoTokenizer"]


# ---------------------------------------------------------------------------------------------- what does not
def test_a_folder_that_does_not_exist(tmp_path: Path):
    with pytest.raises(ModelLoadError, match=r"no-such-model' does not exist.*config\.json"):
        XL3M.from_pretrained(tmp_path / "no-such-model")
    with pytest.raises(ModelLoadError, match="does not exist"):
        XL3M.from_pretrained("./no-such-model")


def test_a_file_in_place_of_a_folder(tmp_path: Path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelLoadError, match="is a file"):
        XL3M.from_pretrained(tmp_path / "model.gguf")


def test_a_folder_without_config(tmp_path: Path):
    with pytest.raises(ModelLoadError, match=r"holds no config\.json"):
        XL3M.from_pretrained(tmp_path)


def test_a_config_that_is_no_json(tmp_path: Path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        XL3M.from_pretrained(tmp_path)


def test_an_architecture_that_no_one_knows(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no_such_architecture"}), encoding="utf-8")
    with pytest.raises(ModelLoadError, match="no_such_architecture"):
        XL3M.from_pretrained(tmp_path)


def bert() -> BertForMaskedLM:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForMaskedLM(BertConfig(vocab_size=600, **sizes))


def t5() -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(T5Config(vocab_size=600, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2))


@pytest.mark.parametrize(("make", "name"), [(bert, "BertForMaskedLM"), (t5, "T5ForConditionalGeneration")])
def test_a_model_that_does_not_predict_the_next_token(tmp_path: Path, make: Any, name: str):
    """transformers would load BERT as a causal model with a warning, and every score would be meaningless."""
    make().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match=f"{name}, which is no causal language model"):
        XL3M.from_pretrained(tmp_path)


def test_pickled_weights_are_refused_and_never_opened(tmp_path: Path):
    model = make_model()
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"bomb": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="safetensors"):
        XL3M.from_pretrained(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_without_tokenizer(tmp_path: Path):
    make_model().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="tokenizer"):
        XL3M.from_pretrained(tmp_path)


def test_weights_cut_short(tmp_path: Path):
    make_model().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1_000])
    with pytest.raises(ModelLoadError, match="Cannot load a causal language model"):
        XL3M.from_pretrained(tmp_path)


def test_code_from_the_models_folder_does_not_run(tmp_path: Path):
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n", encoding="utf-8")
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}), encoding="utf-8")
    with pytest.raises(ModelLoadError):
        XL3M.from_pretrained(tmp_path)
    assert not ran.exists()


# ---------------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize("device", ["gpu", "", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there(saved_model: Path, device: str):
    with pytest.raises(SettingError, match=f"device is '{device}'.*Try 'cpu'"):
        XL3M.from_pretrained(saved_model, device=device)


@pytest.mark.parametrize("dtype", ["float33", "int8", "nn", "", "Tensor"])
def test_a_dtype_that_is_none(saved_model: Path, dtype: str):
    with pytest.raises(SettingError, match=f"dtype is '{dtype}'.*float32"):
        XL3M.from_pretrained(saved_model, dtype=dtype)


def test_device_and_dtype_picked():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device(torch.device("cpu")) == torch.device("cpu")
    assert pick_device(None) == pick_device("auto")
    assert pick_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16
    assert pick_dtype(torch.float64, torch.device("cpu")) is torch.float64
    assert pick_dtype(None, torch.device("mps")) is torch.float32
    assert pick_dtype("auto", torch.device("cpu")) in (torch.bfloat16, torch.float32)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("fast", [True, False])
def test_numbers_that_the_processor_is_slow_with_are_told(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, fast: bool
):
    """A model that transformers loaded is often in bfloat16, whatever the processor can do with it."""
    for name in ("_is_mkldnn_bf16_supported", "_is_mkldnn_fp16_supported"):
        monkeypatch.setattr(torch.ops.mkldnn, name, lambda: fast)
    told = pytest.warns(UserWarning, match=f"in {str(dtype)[6:]}.*dtype='float32'")
    with nullcontext() if fast or dtype is torch.float32 else told:
        TransformersBackend(make_model().to(dtype), make_tokenizer())


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"name": "some/model", "model": 1, "tokenizer": 1},
        {"name": "some/model", "tokenizer": 1},
        {"model": 1},
        {"tokenizer": 1},
    ],
)
def test_a_name_or_loaded_objects_but_not_both(given: dict[str, Any]):
    with pytest.raises(SettingError, match="either a model's name, or model= and tokenizer="):
        XL3M.from_pretrained(**given)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"template": "{question}{segment}"}, "template"),
        ({"measure": "vibes"}, "vibes.*blend"),
        ({"segment_tokens": 4}, "segment_tokens is 4"),
        ({"segment_tokens": WINDOW}, f"segment_tokens is {WINDOW}.*window is {WINDOW}"),
        ({"segment_tokens": 40, "overlap_tokens": 30}, "overlap_tokens is 30"),
        ({"overlap_tokens": -1}, "overlap_tokens is -1"),
        ({"batch_tokens": -5}, "batch_tokens -5"),
        ({"window": -1}, "window is -1"),
        ({"window": 0}, "window is 0"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"batch_tokens": 0}, "batch_tokens 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], words: str):
    with pytest.raises(SettingError, match=words):
        XL3M.from_pretrained(model=shared_model(), tokenizer=shared_tokenizer(), **settings)


def test_every_load_error_is_an_error_of_this_package(tmp_path: Path):
    with pytest.raises(XL3MError):
        load(tmp_path / "nothing")
    with pytest.raises(OSError, match="nothing"):
        load(tmp_path / "nothing")
