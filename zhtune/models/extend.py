"""Weights for new tokens: more rows in the embedding and the output matrix, each the mean of rows it was spelt with.

A new token starts where its UTF-8 bytes under the base's merges were on average (sub-token mean): measured on
SmolLM2-135M with 8,000 tokens 5.5 nats a character before any training, against 8.1 for the mean of all rows and 12.6
for random ones. Not rescaled to the average norm: that costs English in a tied model. Knows nothing of how the tokens
were chosen.

    rows   0 … base tokens | new tokens | padding of the base, where it had more than it lost to new tokens
           bit for bit     | one init   | kept, never generated
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError, require
from zhtune.tokenizers.load import ids_of
from zhtune.vocabulary.gates import Gate

INITS = ("subtoken-mean", "weighted-mean", "mean", "random")
_DECAY = 0.7                                                # weighted-mean: the k-th sub-token weighs e^-0.7k
# 上海 and 海上, 太 and 太太, characters with the same bytes in another order have one mean: 149 of 7,912 new tokens of
# SmolLM2, 199 of 7,391 of LLaMA. The first has it; the others weigh their parts by e^-0.02k, not normalised, enough to
# differ in 16 bits. Of weighted means only repetitions are equal; they are made shorter by e^-0.02 for each.
_TIE_DECAY = 0.02
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_CHUNK = 8192                                               # rows converted to 32 bits at a time
_EXAMPLES = 5


def extend_rows(model: Any, base_definition: dict[str, Any], new_definition: dict[str, Any], new_ids: range,
                init: str = "subtoken-mean", seed: int = 0) -> dict[str, int]:
    """Resize and initialise the rows of new tokens in place; returns {"rows", "new_rows", "equal_rows"}.

    Args:
        model: a transformers causal language model, embeddings tied or not.
        base_definition, new_definition: parsed tokenizer.json before and after, byte level or with byte fallback.
        new_ids: the new ids. The matrices get `max id + 1` rows; a base's padded rows beyond are kept.
        init: of INITS. "mean" is of all rows of the base's tokens; "random" is normal with their mean and deviation in
            each dimension.
        seed: of "random".

    Raises:
        ConfigError: the base has fewer rows than its tokenizer has ids, its tokenizer cannot spell a new token, or no such init.
    """
    torch = require("torch", "train")
    if init not in INITS:
        raise ConfigError(f"no initialisation {init!r} of new rows; there are: {', '.join(INITS)}")
    rows = model.get_input_embeddings().weight.shape[0]
    if rows <= _highest(base_definition):
        raise ConfigError(f"the model has {rows} embedding rows, its tokenizer ids up to {_highest(base_definition)}: "
                          "they do not belong together")
    spelling = spell(base_definition, new_definition, new_ids)
    if new_ids.stop > rows:
        model.resize_token_embeddings(new_ids.stop, mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in _matrices(model):
            weight[new_ids.start:new_ids.stop] = new_rows(weight[:new_ids.start], spelling, init, generator).to(weight)
    embedding = model.get_input_embeddings().weight
    return {"rows": embedding.shape[0], "new_rows": len(new_ids),
            "equal_rows": len(new_ids) - len(torch.unique(embedding[new_ids.start:new_ids.stop], dim=0))}


def spell(base_definition: dict[str, Any], new_definition: dict[str, Any], new_ids: range) -> list[list[int]]:
    """The base ids that each new token's bytes are under the base's merges, no normalizer and pre-tokenizer between them.

    Raises:
        ConfigError: the base has no tokens for some bytes; tokenizers would leave them out or say <unk>.
    """
    import orjson
    from tokenizers import Tokenizer
    names = {i: token for token, i in new_definition["model"]["vocab"].items()}
    model = Tokenizer.from_str(orjson.dumps(base_definition).decode("utf-8")).model
    fallback = bool(base_definition["model"].get("byte_fallback"))
    spelling, wrong = [], []
    for i in new_ids:
        parts = model.tokenize(names[i])
        if not parts or _join([part.value for part in parts], fallback) != names[i].encode("utf-8"):
            wrong.append(names[i])
        spelling.append([part.id for part in parts])
    if wrong:
        raise ConfigError(f"the base's tokenizer has no tokens for the bytes of {len(wrong)} new ones, such as "
                          f"{', '.join(map(repr, wrong[:_EXAMPLES]))}; their rows cannot be initialised: leave these pieces out")
    return spelling


def new_rows(base: Any, spelling: list[list[int]], init: str, generator: Any) -> Any:
    """Rows of new tokens in float32, (new tokens, hidden), or (new tokens,) of a bias.

    Args:
        base: rows of the base's tokens, (base tokens, hidden) or (base tokens,).
        spelling: base ids of each new token.
        init: of INITS.
        generator: a seeded torch.Generator on the CPU, drawn from for "random".
    """
    import torch
    if init == "mean":
        return _mean(base).expand(len(spelling), *base.shape[1:])
    if init == "random":
        mean = _mean(base)
        noise = torch.randn(len(spelling), *base.shape[1:], generator=generator)
        return mean + _deviation(base, mean) * noise.to(base.device)
    made = []
    for ids, weights in zip(spelling, _weights(spelling, init), strict=True):
        part = base[ids].float()
        made.append(part.mean(dim=0) if weights is None else torch.tensordot(torch.tensor(weights, device=base.device), part, dims=1))
    return torch.stack(made)


def base_rows(model: Any, new_ids: range) -> tuple[int, list[str]]:
    """What an extension must leave as it was, for check_rows: rows of the embedding, SHA-256 of each matrix without the rows to come.

    Args:
        model: the base.
        new_ids: the ids to come; padded rows that they take over are left out.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    return rows, _digests(model, rows, new_ids)


def check_rows(model: Any, before: tuple[int, list[str]], base_definition: dict[str, Any], new_definition: dict[str, Any], new_ids: range,
               init: str = "subtoken-mean") -> Gate:
    """Gate `rows`: one size that holds all ids, new rows finite and distinct in the saved type, old rows bit for bit.

    Norms are numbers only: a mean of rows is shorter than they are (see the module's first paragraph). Equal rows fail
    where the tokens are spelt differently, but not for "mean", which makes all of them equal.
    """
    torch = require("torch", "train")
    rows = model.get_input_embeddings().weight.shape[0]
    sizes = {*(weight.shape[0] for weight in _matrices(model)), model.config.get_text_config().vocab_size}
    base_size, digests = before
    needed = max(_highest(new_definition) + 1, base_size)
    wrong = [] if sizes == {rows} else [f"sizes of embedding, output and config differ: {sorted(sizes)}"]
    if rows < needed:
        wrong.append(f"{rows} rows, {needed} are needed")
    numbers: dict[str, float] = {"rows": rows, "new_rows": len(new_ids), "padded_rows": rows - _highest(new_definition) - 1}
    if wrong:
        return Gate("rows", False, numbers, wrong)
    with torch.no_grad():
        changed = sum(a != b for a, b in zip(digests, _digests(model, base_size, new_ids), strict=True))
        equal, examples = _equal(model, spell(base_definition, new_definition, new_ids), new_ids)
        unfit = sum(int((~torch.isfinite(w[new_ids.start:new_ids.stop])).sum()) for w in _matrices(model))
        for name, weight in zip(("", "output_"), [w for w in _matrices(model) if w.dim() == 2]):
            numbers |= {name + key: value for key, value in _norms(weight, new_ids).items()}
    numbers |= {"not_finite": unfit, "equal_rows": equal, "base_matrices_changed": changed}
    wrong = [f"{changed} matrices of the base's rows have changed"] * bool(changed)
    wrong += [f"{unfit} new weights are not finite: the base's hold infinities or are no numbers"] * bool(unfit)
    return Gate("rows", not wrong and (not equal or init == "mean"), numbers, [*wrong, *examples][:_EXAMPLES])


def token_indices(model: Any, new_ids: range) -> dict[str, list[int]]:
    """PEFT's `trainable_token_indices`: the new rows of the embedding, and of the output matrix where it is one of its own."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {module: name.rpartition(".")[2] for name, module in model.named_modules() if module in (embedding, head)}
    found = {names[embedding]: list(new_ids)}
    if head is not None and head.weight is not embedding.weight:
        found[names[head]] = list(new_ids)
    return found


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


def _join(parts: list[str], fallback: bool) -> bytes:
    """The bytes of token strings; <0xE9> is one byte where the tokenizer falls back to bytes."""
    if not fallback:
        return "".join(parts).encode("utf-8")
    return b"".join(bytes.fromhex(found[1]) if (found := _BYTE.fullmatch(part)) else part.encode("utf-8") for part in parts)


def _weights(spelling: list[list[int]], init: str) -> Iterator[list[float] | None]:
    """Weights of each token's sub-tokens; None for equal ones."""
    seen: set[frozenset[tuple[int, int]]] = set()           # the sub-tokens in their proportions: what a mean depends on
    for ids in spelling:
        counts, repeats = Counter(ids), _repeats(ids)
        unit = math.gcd(*counts.values())
        key = frozenset((i, count // unit) for i, count in counts.items())
        if init == "weighted-mean":
            weights = [math.exp(-_DECAY * k) for k in range(len(ids))]
            yield [weight / sum(weights) * math.exp(-_TIE_DECAY * (repeats - 1)) for weight in weights]
        elif key in seen or repeats > 1:
            yield [math.exp(-_TIE_DECAY * k) / len(ids) for k in range(len(ids))]
        else:
            yield None
        seen.add(key)


def _repeats(ids: list[int]) -> int:
    """How often the shortest sequence that ids repeat stands in them: 2 for 太太, however many bytes 太 is."""
    return next(len(ids) // size for size in range(1, len(ids) + 1) if ids == ids[:size] * (len(ids) // size))


def _chunks(weight: Any) -> Iterator[Any]:
    """Rows in float32, some at a time: a whole embedding of a 7B model is 2.5 GB of them."""
    for start in range(0, weight.shape[0], _CHUNK):
        yield weight[start:start + _CHUNK].float()


def _mean(base: Any) -> Any:
    return sum(chunk.double().sum(dim=0) for chunk in _chunks(base)).div(base.shape[0]).float()


def _deviation(base: Any, mean: Any) -> Any:
    return sum((chunk - mean).double().square().sum(dim=0) for chunk in _chunks(base)).div(base.shape[0]).sqrt().float()


def _digests(model: Any, rows: int, new_ids: range) -> list[str]:
    """SHA-256 of the first `rows` rows of each matrix but those of `new_ids`."""
    import torch
    digests = []
    for weight in _matrices(model):
        digest = hashlib.sha256()
        for part in (weight[:min(new_ids.start, rows)], weight[min(new_ids.stop, rows):rows]):
            for start in range(0, part.shape[0], _CHUNK):
                digest.update(part[start:start + _CHUNK].detach().cpu().contiguous().view(torch.uint8).numpy())
        digests.append(digest.hexdigest())
    return digests


def _equal(model: Any, spelling: list[list[int]], new_ids: range) -> tuple[int, list[str]]:
    """How many new embedding rows, as saved, are one that another spelling has already; with examples."""
    import torch
    rows = model.get_input_embeddings().weight[new_ids.start:new_ids.stop].detach().cpu().contiguous()
    first: dict[bytes, int] = {}
    found = []
    for place, row in enumerate(rows.view(torch.uint8).numpy()):
        other = first.setdefault(row.tobytes(), place)
        if spelling[other] != spelling[place]:
            found.append(f"rows {new_ids[other]} and {new_ids[place]} are equal")
    return len(found), found[:_EXAMPLES]


def _norms(weight: Any, new_ids: range) -> dict[str, float]:
    """Median length of the new rows, quartiles of the base's, and whether the one lies within the others."""
    import torch
    norms = torch.cat([chunk.norm(dim=1) for chunk in _chunks(weight[:new_ids.stop])])
    low, high = torch.quantile(norms[:new_ids.start], torch.tensor([.25, .75], device=norms.device)).tolist()
    median = norms[new_ids.start:].median().item()
    return {"norm": round(median, 4), "base_norm_low": round(low, 4), "base_norm_high": round(high, 4),
            "norm_within": int(low <= median <= high)}


def _highest(definition: dict[str, Any]) -> int:
    return max(ids_of(definition).values())
