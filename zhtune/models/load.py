"""References -> Hugging Face folders -> weights in memory. No remote code, no pickles, nothing from a network.

A chain of adapters is one model here: each adapter names its base by relative path and digest.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from zhtune import references
from zhtune.errors import ArtifactError, ConfigError, require
from zhtune.models import chatglm, shapes
from zhtune.references import Source
from zhtune.templates.encode import ChatEncoder
from zhtune.templates.render import template_of
from zhtune.tokenizers.load import read_object

# Layers of SmolLM2 (of 30) that a depth-pruned embedded base keeps: the first ones and the last two.
_LAST = 2
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json",
                   "generation_config.json")


def materialise(source: Source, scratch: Path) -> Path:
    """A Hugging Face folder for a model that is no adapter: its own, or one written to `scratch` for a base.

    Args:
        source: a resolved model reference.
        scratch: a folder to write the weights of `embedded` and `new:` into.

    Raises:
        ConfigError: it is no model folder.
    """
    if source.kind == "adapter":
        raise ConfigError(f"{source.reference} is an adapter; merge it first: zhtune merge --adapter {source.reference} --out …")
    if source.kind == "base" and (scratch / "config.json").exists():
        return scratch
    if source.kind == "base":
        scheme, _, name = source.reference.partition(":")
        quiet_libraries()
        if scheme == "new":
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
    return source.path


def layers_of(name: str) -> list[int] | None:
    """Which layers `embedded:N` keeps: all for "", else the first N-2 and the last two of 30.

    Raises:
        ConfigError: not a number from 3 to 30.
    """
    if not name:
        return None
    if not name.isdigit() or not 3 <= int(name) <= 30:
        raise ConfigError(f"embedded:{name} must name how many of the 30 layers to keep, 3 to 30")
    return [*range(int(name) - _LAST), *range(30 - _LAST, 30)]


def write_embedded(folder: Path, layers: list[int] | None = None) -> None:
    """Write SmolLM2-135M-Instruct (float32, from the GGUF in the wheel), with some of its layers or all."""
    torch, transformers = require("torch", "train"), quiet_libraries()
    gguf = references.embedded_gguf()
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, quantization_config=transformers.GgufConfig(dequantize=True))
    if layers is not None:
        keep_layers(model, layers)
    model.generation_config = transformers.GenerationConfig(eos_token_id=2, pad_token_id=2, max_new_tokens=256)
    model.save_pretrained(folder)
    embedded_tokenizer().save(str(folder / "tokenizer.json"))
    shapes.write_tokenizer_config(folder, eos="<|im_end|>", pad="<|im_end|>")


def embedded_tokenizer() -> Any:
    """The `tokenizers.Tokenizer` of SmolLM2-135M-Instruct, without its weights.

    transformers gives the GGUF's tokenizer ByteLevel only; with the original's Digits put back 0 of 2,820 lines differ
    from llama.cpp's `smollm`.
    """
    gguf = references.embedded_gguf()
    tokenizer = quiet_libraries().AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)._tokenizer
    tokenizer.pre_tokenizer = shapes.smollm_pre_tokenizer()
    tokenizer.post_processor = None
    return tokenizer


def keep_layers(model: Any, layers: list[int]) -> None:
    """Throw away all decoder layers but those named (depth pruning), in place."""
    torch = require("torch", "train")
    kept = torch.nn.ModuleList(model.model.layers[i] for i in layers)
    for index, layer in enumerate(kept):
        layer.self_attn.layer_idx = index                   # the key-value cache counts by it
    model.model.layers = kept
    model.config.num_hidden_layers = len(layers)
    if getattr(model.config, "layer_types", None):          # transformers' own optional list, one entry a layer
        model.config.layer_types = model.config.layer_types[:len(layers)]


def quiet_libraries() -> Any:
    """transformers, without its progress bars and advice on the user's terminal."""
    transformers = require("transformers", "train")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


def load_model(folder: Path, dtype: str = "float32") -> Any:
    """The causal language model of a folder, in evaluation mode.

    Args:
        folder: a Hugging Face folder with safetensors.
        dtype: "float32", "bfloat16", "float16" or "auto" (the checkpoint's).
    """
    torch, transformers = require("torch", "train"), quiet_libraries()
    chatglm.register()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype if dtype == "auto" else getattr(torch, dtype), attn_implementation="eager",
            local_files_only=True, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder} cannot be loaded as a model: {str(error).splitlines()[0]}") from error
    return model.eval()


def chain(source: Source) -> tuple[Source, list[Source]]:
    """The full model under a reference, and the adapters on it, first to last.

    Raises:
        ArtifactError: an adapter's base is gone or is another one now.
    """
    adapters: list[Source] = []
    while source.kind == "adapter":
        adapters.insert(0, source)
        resolved = source.manifest["resolved"]
        location = resolved["base"]
        base = references.resolve(location if resolved["base_kind"] == "base" else str((source.path / location).resolve()))
        if base.digest != resolved["base_digest"]:
            raise ArtifactError(f"{source.reference} was trained on another {location}: its digest has changed")
        source = base
    return source, adapters


def load_chain(source: Source, scratch: Path, dtype: str = "float32") -> tuple[Any, Path]:
    """The model under a reference with its adapters applied, and the folder of its tokenizer.

    Adapters are merged into the weights in memory, in the order in which they were trained.
    """
    base, adapters = chain(source)
    folder = materialise(base, scratch)
    model = load_model(folder, dtype)
    for adapter in adapters:
        peft = require("peft", "train")
        model = peft.PeftModel.from_pretrained(model, str(adapter.path), is_trainable=False).merge_and_unload()
    return model.eval(), folder


def open_encoder(source: Source, scratch: Path, template: str = "", chat: bool = True) -> tuple[ChatEncoder, Path]:
    """The encoder of a model or a chain of adapters, and the model's folder: everything about texts, before weights are loaded.

    Args:
        source: a resolved model reference.
        scratch: as for `materialise`.
        template, chat: as for ChatEncoder.
    """
    base, adapters = chain(source)
    folder = materialise(base, scratch)
    return ChatEncoder(folder, template, [adapter.path for adapter in adapters], chat), folder


def save_template(encoder: ChatEncoder, folder: Path, target: Path) -> None:
    """Write the chat template of `encoder` into `target` where it is not that of the model in `folder`: it travels with what was trained."""
    if encoder.template_text != template_of(folder):
        (target / "chat_template.jinja").write_text(encoder.template_text, "utf-8")


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy what makes a tokenizer and a chat model besides the weights: never through save_pretrained, which loses files."""
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
