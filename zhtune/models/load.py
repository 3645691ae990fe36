"""References -> Hugging Face folders -> weights in memory. No remote code, no pickles, nothing from a network.

A chain of adapters is one model here: each adapter names its base by place and digest. LoRA and IA3 are merged
into the weights in memory; what cannot be merged (models/attached.py) stands last and stays beside them.
"""

from __future__ import annotations

import gc
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zhtune import references
from zhtune.errors import ArtifactError, ConfigError, require
from zhtune.models import chatglm, shapes
from zhtune.models.embedded import layers_of, write_embedded
from zhtune.models.families import family_of, refuse
from zhtune.references import Source
from zhtune.templates.encode import ChatEncoder
from zhtune.templates.render import template_of
from zhtune.tokenizers.load import read_object

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json",
                   "generation_config.json", "extension.json")  # the last says which rows are new
_MERGED = ("LORA", "IA3")                                   # peft_type of adapters that fold into weights


def materialise(source: Source, scratch: Path) -> Path:
    """A Hugging Face folder for a model that is no adapter: its own, or one written to `scratch` for a base.

    Args:
        source: a resolved model reference.
        scratch: a folder to write the weights of `embedded` and `new:` into.

    Raises:
        ConfigError: it is no model folder.
    """
    if is_adapter(source):
        refuse_unmergeable([source])
        raise ConfigError(f"{source.reference} is an adapter; merge it first: zhtune merge --adapter {source.reference} --out …")
    if source.kind == "base" and (scratch / "config.json").exists():
        return scratch
    if source.kind == "base":
        scheme, _, name = source.reference.partition(":")
        if scheme == "new":
            quiet_libraries()
            shapes.write_shape(name, scratch)
        else:
            write_embedded(scratch, layers_of(name))
        return scratch
    if source.path is None or not (source.path / "config.json").exists():
        raise ConfigError(f"{source.reference} is no model folder: it has no config.json")
    if read_object(source.path / "config.json").get("model_type") == "chatglm":
        raise ConfigError(f"{source.reference} is an original ChatGLM checkpoint, which only its own code reads; convert it first: "
                          f"zhtune convert --model {source.reference} --out …")
    if list(source.path.glob("*.bin")) and not list(source.path.glob("*.safetensors")):
        raise ConfigError(f"{source.reference} holds pickled weights (.bin); convert them to safetensors first")
    refuse(family_of(source.path), "loading")
    return source.path


def quiet_libraries() -> Any:
    """transformers, without its progress bars, advice and what it tells other libraries on the user's terminal."""
    transformers = require("transformers", "train")
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)      # PEFT reads it
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)   # on processors it tells of kernels that it has not
    return transformers


def load_model(folder: Path, dtype: str = "float32", quantized: str = "") -> Any:
    """The causal language model of a folder, in evaluation mode.

    Args:
        folder: a Hugging Face folder with safetensors.
        dtype: "float32", "bfloat16", "float16" or "auto" (the checkpoint's).
        quantized: "nf4" or "int8", to hold its linear layers in 4 or 8 bits by bitsandbytes; empty for as they are.
    """
    torch, transformers = require("torch", "train"), quiet_libraries()
    more = {"quantization_config": _bitsandbytes(torch, transformers, quantized)} if quantized else {}
    chatglm.register()
    try:
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, dtype=dtype if dtype == "auto" else getattr(torch, dtype), attn_implementation="eager",
            local_files_only=True, trust_remote_code=False, use_safetensors=True, **more)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder} cannot be loaded as a model: {str(error).splitlines()[0]}") from error
    if missing := sorted(found["missing_keys"]):            # transformers would go on with random ones
        raise ConfigError(f"{folder} lacks {len(missing)} weights of a causal language model, such as {missing[0]}")
    for module in model.modules() if quantized else ():
        # On AVX512-BF16 processors bitsandbytes 0.50 repacks 4-bit weights at the first forward in evaluation mode: training
        # after it drops gradients silently, and saving after it writes garbage.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model.eval()


def causal_of(model: Any) -> Any:
    """The causal language model in a wrapper for an adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model    # the wrappers have it, a plain model not


def fuse_attention(model: Any, flash: bool = False) -> None:
    """Let torch's fused kernels, or flash-attention's, compute attention where the architecture can; a prefix is an attention of its own."""
    causal = causal_of(model)
    flash = flash and causal._supports_flash_attn
    if causal.config._attn_implementation == "eager" and (flash or causal._supports_sdpa):
        causal.set_attn_implementation("flash_attention_2" if flash else "sdpa")


def _bitsandbytes(torch: Any, transformers: Any, quantized: str) -> Any:
    require("bitsandbytes", "qlora")
    if quantized == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    half = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                           bnb_4bit_compute_dtype=half if torch.cuda.is_available() else torch.float32)


def clear_card() -> None:
    """Free what earlier models of this process have left on the card: trainers and quantized models are cycles of references."""
    torch = require("torch", "train")
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def card_in_words(name: str) -> Iterator[None]:
    """Turn a card that is too small for a model into one line."""
    torch = require("torch", "train")
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ConfigError(f"{name} does not fit on the card ({str(error).splitlines()[0][:160]}); end what else uses it, take fewer bits "
                          "(train: --method qlora; answer: zhtune merge, then quantize), or the processor: CUDA_VISIBLE_DEVICES=") from error


def is_adapter(source: Source) -> bool:
    """Whether a reference is an adapter: an artifact, or a plain PEFT folder."""
    return source.kind == "adapter" or (source.path is not None and (source.path / "adapter_config.json").exists())


def adapter_config(source: Source) -> dict[str, Any]:
    """What an adapter's adapter_config.json says."""
    try:
        return json.loads((source.path / "adapter_config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{source.reference} has no readable adapter_config.json") from error


def refuse_unmergeable(adapters: list[Source]) -> None:
    """Raise a ConfigError for an adapter that does not fold into weights, before any are loaded."""
    for adapter in adapters:
        if (kind := adapter_config(adapter).get("peft_type")) not in _MERGED:
            raise ConfigError(f"{adapter.reference} is a {kind} adapter: it adds to what the model computes and cannot be folded into its "
                              "weights, so neither merge, quantize nor further training can start from it; chat and serve take it as it is")


def chain(source: Source, base: str = "") -> tuple[Source, list[Source]]:
    """The full model under a reference, and the adapters on it, first to last.

    Args:
        source: an adapter or a model.
        base: where the model under the lowest adapter lies now, if not where that adapter says.

    Raises:
        ArtifactError: an adapter's base is gone or is another one now, or cannot be told.
    """
    adapters: list[Source] = []
    while is_adapter(source):
        adapters.insert(0, source)
        source = _base_of(source, base)
    return source, adapters


def _base_of(adapter: Source, base: str) -> Source:
    if adapter.kind != "adapter":                           # a plain PEFT folder: it knows a place, no digest
        location = str(adapter_config(adapter).get("base_model_name_or_path") or "")
        path = (adapter.path / location).resolve()
        if not base and not (location and (path / "config.json").exists()):
            raise ArtifactError(f"{adapter.reference} says that its base is {location!r}, and no model lies there; "
                                "say where it is with --base")
        return references.resolve(base or str(path))
    resolved = adapter.manifest["resolved"]
    location = resolved["base"]
    named = resolved["base_kind"] == "base" or location.startswith("hf:")
    inside = location if named else str((adapter.path / location).resolve())
    if not (base or named or Path(inside).exists()):
        raise ArtifactError(f"{adapter.reference}: its base {location} does not exist, seen from its own folder; put it back, or "
                            "zhtune merge --base WHERE_IT_IS")
    found = references.resolve(base if base and resolved["base_kind"] != "adapter" else inside)
    if found.digest != resolved["base_digest"]:
        raise ArtifactError(f"{adapter.reference} was trained on another {location}: its digest has changed")
    return found


def load_chain(source: Source, scratch: Path, dtype: str = "float32", quantized: str = "", base: str = "",
               apart: bool = False, as_trained: bool = False) -> tuple[Any, Path]:
    """The model under a reference with its adapters applied, and the folder of its tokenizer.

    Adapters are merged into the weights in memory, in the order in which they were trained, before those are quantized.
    One that cannot be merged stands on a base held as it was in training.

    Args:
        source: a resolved model reference.
        scratch: an empty folder for what has to be written on the way.
        dtype, quantized: of load_model.
        base: of chain.
        apart: leave the last adapter beside the weights.
        as_trained: leave one beside them that was trained on a quantized base, on such a base: in 16 bit a card may be too small for it.
    """
    root, adapters = chain(source, base)
    refuse_unmergeable(adapters[:-1])
    folder = materialise(root, scratch)
    whole = [a for a in adapters[-1:] if adapter_config(a).get("peft_type") not in _MERGED]
    held = adapters[-1].manifest.get("resolved", {}).get("quantized", "") if adapters and (whole or as_trained) else ""
    beside = adapters[-1:] if apart or held else whole
    merged = adapters[:len(adapters) - len(beside)]
    quantized = held if held or whole else quantized
    model = load_model(folder, dtype, "" if merged else quantized)
    for adapter in merged:
        model = _apply(model, adapter, apart=False)
    if merged and quantized:
        model.save_pretrained(scratch / "merged")
        del model                                           # before the next one is there
        model = load_model(scratch / "merged", dtype, quantized)
    for adapter in beside:
        model = _apply(model, adapter, apart=True)
    return model.eval(), folder


def _apply(model: Any, adapter: Source, apart: bool) -> Any:
    config = adapter_config(adapter)
    if config["peft_type"] not in _MERGED:
        from zhtune.models import attached
        if config["peft_type"] not in attached.PARTS:
            raise ConfigError(f"{adapter.reference} is a {config['peft_type']} adapter, which zhtune does not read")
        return attached.load_attached(model, adapter.path, config)
    peft = require("peft", "train")
    targets = config.get("target_modules") or []
    if model.config.tie_word_embeddings and {"embed_tokens", "word_embeddings", "lm_head"} & set(targets if isinstance(targets, list) else []):
        raise ConfigError(f"{adapter.reference} adapts one of two tied embeddings by LoRA: merged, it would change the other one too")
    try:
        beside = peft.PeftModel.from_pretrained(model, str(adapter.path), is_trainable=False)
        return beside if apart else beside.merge_and_unload()
    except (ValueError, RuntimeError, KeyError) as error:
        raise ArtifactError(f"{adapter.reference} does not fit its base: {str(error).splitlines()[0]}") from error


def open_encoder(source: Source, scratch: Path, template: str = "", chat: bool = True, base: str = "") -> tuple[ChatEncoder, Path]:
    """The encoder of a model or a chain of adapters, and the model's folder: everything about texts, before weights are loaded.

    Args:
        source: a resolved model reference.
        scratch: as for `materialise`.
        template, chat: as for ChatEncoder.
        base: as for chain.
    """
    root, adapters = chain(source, base)
    folder = materialise(root, scratch)
    found = family_of(folder)
    return ChatEncoder(folder, template, [adapter.path for adapter in adapters], chat, found.template, found.stops), folder


def save_template(encoder: ChatEncoder, folder: Path, target: Path) -> None:
    """Write the chat template of `encoder` into `target` where it is not that of the model in `folder`: it travels with what was trained."""
    if encoder.template_text != template_of(folder):
        (target / "chat_template.jinja").write_text(encoder.template_text, "utf-8")


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy what makes a tokenizer and a chat model besides the weights: never through save_pretrained, which loses files."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
