"""Model -> a GGUF file in 8, 4 or 16 bits, after llama.cpp has been seen to tokenize as the model's own tokenizer."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zhtune.artifact import Artifact
from zhtune.building import Stage, Work, build
from zhtune.config import StageConfig
from zhtune.errors import ConfigError
from zhtune.log import logger
from zhtune.references import MODEL_KINDS, Source
from zhtune.templates.encode import ChatEncoder
from zhtune.vocabulary.gates import GateFailed

STAGE = Stage("quantize", version=3, kind="quantized", inputs={"model": MODEL_KINDS})
_EXAMPLES = 3
_PROBE = [{"role": "user", "content": "高血压患者应该挂什么科？"}, {"role": "assistant", "content": "心内科。"},
          {"role": "user", "content": "What about 2 children?"}]


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig(StageConfig):
    """Write a LLaMA, Mistral, Qwen2 or Qwen3 model as a GGUF file, for llama.cpp and everything built on it."""

    model: str
    """A model folder, embedded, embedded:8 or new:llama-15m; merge an adapter first"""
    type: Literal["int8", "int4", "f16"] = "int8"
    """int8: Q8_0 (8.5 bits a weight); int4: Q4_1 layers (5 bits) with Q8_0 embeddings; f16: 16 bits"""
    template: str = ""
    """Chat template for a base that has none, such as chatml"""


def quantize(config: QuantizeConfig) -> Artifact:
    """Write model.gguf and, beside it, what makes prompts for it (tokenizer.json, template, configs).

    Raises:
        ConfigError: an adapter, an architecture or a tokenizer that a GGUF file cannot hold.
        GateFailed: llama.cpp gives some text other token ids than tokenizer.json.
    """
    return build(STAGE, config, lambda work: _write(work, config))


def _write(work: Work, config: QuantizeConfig) -> None:
    from zhtune.export.gguf import write_gguf
    from zhtune.models.llamacpp import MODEL_FILE
    from zhtune.models.load import copy_tokenizer, materialise
    source = work.sources["model"]
    _refuse_unfit(source)
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        folder = materialise(source, Path(scratch))
        encoder = ChatEncoder(folder, config.template)
        shares = write_gguf(folder, work.path / MODEL_FILE, encoder, config.type, ", ".join(sorted(work.licences)))
        copy_tokenizer(folder, work.path)
        shutil.copyfile(folder / "config.json", work.path / "config.json")
    (work.path / "chat_template.jinja").write_text(encoder.template_text, "utf-8")
    work.report["gate"] = check_tokens(work.path, encoder)
    weights, size = (sum(share[what] for share in shares.values()) for what in ("weights", "bytes"))
    work.metrics |= {"bits_per_weight": round(8 * size / weights, 3), "megabytes": round((work.path / MODEL_FILE).stat().st_size / 1e6, 2),
                     "weights": weights, "type": config.type}
    work.report["tensors"] = [
        {"type": name, "tensors": s["tensors"], "weights": s["weights"], "share": round(s["weights"] / weights, 4),
         "bits_per_weight": round(8 * s["bytes"] / s["weights"], 3), "megabytes": round(s["bytes"] / 1e6, 3)} for name, s in shares.items()]
    work.resolved |= {"base": source.reference, "base_digest": source.digest}


def _refuse_unfit(source: Source) -> None:
    if source.kind == "quantized" or (source.path is not None and source.path.suffix == ".gguf"):
        raise ConfigError(f"{source.reference} is quantized already; quantize the model it was made from")
    if source.kind == "endpoint":
        raise ConfigError(f"{source.reference} is an endpoint; quantize needs the model's files")


def check_tokens(folder: Path, encoder: ChatEncoder) -> dict[str, Any]:
    """Compare llama.cpp's token ids with tokenizer.json's on probe lines and on a prompt of the chat template.

    Args:
        folder: holds model.gguf and tokenizer.json.
        encoder: of that folder.

    Returns:
        Numbers for the report.

    Raises:
        GateFailed: they differ; the message holds examples.
    """
    from tokenizers import Tokenizer

    from zhtune.export.gguf_tokenizer import probe_lines
    from zhtune.models.llamacpp import LlamaCppEngine
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with closing(LlamaCppEngine(Source("the written file", "quantized", "", folder), threads=1, slots=1, context=64)) as engine:
        prompt = engine.render(_PROBE)
        texts = [*probe_lines(), prompt]
        wrong = [text for text in texts if engine.tokenize(text) != tokenizer.encode(text, add_special_tokens=False).ids]
        if engine.tokenize("a", beginning=True) != tokenizer.encode("a").ids:
            wrong.append("the token of the beginning")
        same_prompt = encoder.prompt(_PROBE) in (engine.tokenize(prompt), engine.tokenize(prompt, beginning=True))
    if wrong:
        raise GateFailed(f"llama.cpp gives other token ids than tokenizer.json to {len(wrong)} of {len(texts) + 1} texts, such as: "
                         + ", ".join(repr(text[:60]) for text in wrong[:_EXAMPLES]))
    if not same_prompt:
        logger.info("quantize: programs that tokenize the rendered chat template in one go see other ids than training did; "
                    "zhtune's own engine sees the same")
    return {"texts": len(texts) + 1, "different": 0, "template_in_one_go_equal": same_prompt}
