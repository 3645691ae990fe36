"""llama.cpp's ids of many lines, for a tokenizer without a model: what a GGUF file of it will do.

A GGUF file of the tokenizer with one layer of zeros is written into a temporary folder (llama.cpp serves no file without
weights) and asked over its own loopback server, thousands of lines a request. Compares nothing.
"""

from __future__ import annotations

import logging
import re
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np

from zhtune.errors import DataError, require
from zhtune.export.gguf_tokenizer import Vocabulary, add_tokens, read_vocabulary
from zhtune.models.llamacpp import MODEL_FILE, LlamaCppEngine
from zhtune.parallel import batches
from zhtune.references import Source

_WIDTH = 4
_SEPARATOR = -1                                             # llama.cpp's /tokenize hands on numbers among the texts as they are
_REQUEST = 200_000                                          # characters
# llama.cpp cuts BLOOM's text with std::wregex, which recurses once a character: a run of 20,000 passes, one of 50,000 ends the process.
_CRASH = re.compile(r"[^(\s|.,!?…。，、।۔،)]{10000}")


def llamacpp_ids(folder: Path, lines: list[str]) -> list[list[int]]:
    """llama.cpp's token ids of each line.

    Nothing is put before or after a line, and a control token in it is text; tokenizers does the same with
    encode_special_tokens set and add_special_tokens=False.

    Args:
        folder: holds tokenizer.json.
        lines: any texts.

    Raises:
        ConfigError: a tokenizer that llama.cpp cannot express.
        DataError: a BLOOM tokenizer and a line that would crash llama.cpp (see crashes).
        MissingDependency: gguf or xllamacpp is not installed.
    """
    vocabulary = read_vocabulary(folder)
    for number, line in enumerate(lines, 1):
        if crashes(vocabulary, line):
            raise DataError(f"line {number} has 10,000 characters without space or punctuation ({line[:20]!r}…), which crash llama.cpp "
                            "with BLOOM's tokenizer; leave it out")
    with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
        file = Path(scratch) / MODEL_FILE
        write_tokenizer(vocabulary, file)
        with closing(LlamaCppEngine(Source("the tokenizer", "quantized", "", file), threads=1, slots=1, context=64)) as engine:
            return [ids for batch in batches(lines, len, _REQUEST) for ids in _ask(engine, batch)]


def crashes(vocabulary: Vocabulary, line: str) -> bool:
    """Whether llama.cpp's tokenizer would end the process on a line: BLOOM's, on a very long run without space or punctuation."""
    return vocabulary.pre == "bloom" and len(line) >= 10_000 and _CRASH.search(line) is not None


def write_tokenizer(vocabulary: Vocabulary, file: Path) -> None:
    """Write a GGUF file of a vocabulary with the smallest LLaMA that llama.cpp loads, all zeros."""
    gguf = require("gguf", "gguf")
    logging.getLogger("gguf.gguf_writer").setLevel(logging.WARNING)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    add_tokens(writer, vocabulary)
    writer.add_bos_token_id(0)                              # any: none is added, but llama.cpp wants them within the vocabulary
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    rows = {"token_embd": len(vocabulary.tokens)}
    square = [f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")]
    for name in ("token_embd", *square):
        writer.add_tensor(f"{name}.weight", np.zeros((rows.get(name, _WIDTH), _WIDTH), np.float16))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.zeros(_WIDTH, np.float32))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _ask(engine: LlamaCppEngine, lines: list[str]) -> list[list[int]]:
    content = [part for line in lines for part in (line, _SEPARATOR)]
    ids = engine.ask("POST", "/tokenize", {"content": content, "parse_special": False, "add_special": False})["tokens"]
    found: list[list[int]] = [[]]
    for token in ids:
        if token == _SEPARATOR:
            found.append([])
        else:
            found[-1].append(token)
    return found[:-1]
