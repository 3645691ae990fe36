"""Weights for new tokens: more rows in the embedding and the output matrix, each the mean of rows it was spelt with.

A new token starts where its UTF-8 bytes under the base's merges were on average (sub-token mean): measured on
SmolLM2-135M with 8,000 tokens 5.5 nats a character before any training, against 8.1 for the mean of all rows and 12.6
for random ones. Not rescaled to the average norm: that costs English in a tied model. Knows nothing of how the tokens
were chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError, ZhtuneError, require
from zhtune.vocabulary.gates import Gate

INITS = ("subtoken-mean", "mean")


def extend_rows(model: Any, base_definition: dict[str, Any], new_definition: dict[str, Any], new_ids: range,
                init: str = "subtoken-mean") -> dict[str, int]:
    """Resize and initialise the rows of new tokens in place; returns {"rows", "new_rows", "equal_rows"}.

    Args:
        model: a transformers causal language model, embeddings tied or not.
        base_definition, new_definition: parsed tokenizer.json before and after.
        new_ids: the new ids. The matrices get `max id + 1` rows; a base's padded rows beyond are kept.
        init: "subtoken-mean", or "mean" of all rows of the base's tokens.

    Raises:
        ConfigError: the base has fewer rows than its tokenizer has ids.
        ZhtuneError: a new row is not finite.
    """
    torch = require("torch", "train")
    rows = model.get_input_embeddings().weight.shape[0]
    if rows <= _highest(base_definition):
        raise ConfigError(f"the model has {rows} embedding rows, its tokenizer ids up to {_highest(base_definition)}: "
                          "they do not belong together")
    spelling = spell(base_definition, new_definition, new_ids)
    if new_ids.stop > rows:
        model.resize_token_embeddings(new_ids.stop, mean_resizing=False)
    with torch.no_grad():
        for weight in _matrices(model):
            weight[new_ids.start:new_ids.stop] = _new_rows(torch, weight, spelling, new_ids, init).to(weight.dtype)
    new = model.get_input_embeddings().weight[new_ids.start:new_ids.stop]
    if not torch.isfinite(new).all():
        raise ZhtuneError("a new embedding row is not finite: the base's weights hold infinities or are no numbers")
    return {"rows": model.get_input_embeddings().weight.shape[0], "new_rows": len(new_ids),
            "equal_rows": len(new_ids) - len(torch.unique(new, dim=0))}


def spell(base_definition: dict[str, Any], new_definition: dict[str, Any], new_ids: range) -> list[list[int]]:
    """The base ids that each new token's bytes are under the base's merges, no pre-tokenizer between them."""
    import orjson
    from tokenizers import Tokenizer
    names = {i: token for token, i in new_definition["model"]["vocab"].items()}
    model = Tokenizer.from_str(orjson.dumps(base_definition).decode("utf-8")).model
    return [[piece.id for piece in model.tokenize(names[i])] for i in new_ids]


def check_auto_tokenizer(folder: Path, lines: list[str]) -> Gate:
    """Whether transformers loads the folder's tokenizer to the same ids as its tokenizer.json says."""
    transformers = require("transformers", "train")
    from tokenizers import Tokenizer
    direct = Tokenizer.from_file(str(folder / "tokenizer.json"))
    direct.no_padding()
    direct.no_truncation()
    loaded = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    expected = [e.ids for e in direct.encode_batch_fast(lines, add_special_tokens=False)]
    found = loaded(lines, add_special_tokens=False)["input_ids"]
    wrong = [f"{line!r} is {b}, expected {a}" for line, a, b in zip(lines, expected, found, strict=True) if a != b]
    return Gate("auto_tokenizer", not wrong, {"lines": len(lines), "differ": len(wrong)}, wrong[:5])


def _matrices(model: Any) -> list[Any]:
    """The input matrix, and the output matrix and its bias where they are not the same memory."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    found = [embedding]
    if head is not None and head.weight.data_ptr() != embedding.data_ptr():
        found.append(head.weight)
    if head is not None and head.bias is not None:
        found.append(head.bias)
    return found


def _new_rows(torch: Any, weight: Any, spelling: list[list[int]], new_ids: range, init: str) -> Any:
    """(new ids, hidden) in float32, from rows of the base only; (new ids,) of a bias."""
    base = weight[:new_ids.start].float()
    if init == "mean":
        return base.mean(dim=0).expand(len(new_ids), *base.shape[1:])
    return torch.stack([base[ids].mean(dim=0) for ids in spelling])


def _highest(definition: dict[str, Any]) -> int:
    return max(*definition["model"]["vocab"].values(), *(t["id"] for t in definition.get("added_tokens", [])))

