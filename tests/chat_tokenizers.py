"""Tokenizers for tests of chat templates: 256 bytes and every family's control tokens, and SentencePiece-like ones with byte fallback."""

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "[gMASK]", "<sop>", "<eop>",
           "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]


def byte_tokenizer(folder, names=("<s>", "</s>"), control=CONTROL):
    """tokenizer.json of single bytes; a token a byte makes every comparison of strings one of tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*control, *alphabet])}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return save(folder, json.loads(tokenizer.to_str()), names)


def spelling_tokenizer(folder, names=("<s>", "</s>"), control=CONTROL, pieces="▁ab你好"):
    """tokenizer.json as zhtune makes it of SentencePiece: ▁ before every text, unknown characters in byte tokens."""
    vocabulary = {p: i for i, p in enumerate([*control, *(f"<0x{b:02X}>" for b in range(256)), *pieces])}
    form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return save(folder, {
        "version": "1.0", "truncation": None, "padding": None, "pre_tokenizer": None, "post_processor": None,
        "added_tokens": [{"id": i, "content": token, **form} for i, token in enumerate(control)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "vocab": vocabulary, "merges": []}}, names)


def save(folder, definition, names=("<s>", "</s>")):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(definition), "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": names[0], "eos_token": names[1]}), "utf-8")
    return folder


def with_control(definition, tokens, first):
    """A parsed tokenizer.json with special tokens from id `first` on."""
    form = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for i, token in enumerate(tokens, first):
        definition["added_tokens"].append({"id": i, "content": token, **form})
        definition["model"]["vocab"][token] = i
    return definition


def shown(encoder, sample):
    """A sample as one string: control tokens in {}, what is trained in ⟦⟧."""
    special = {i: token.content for i, token in encoder._control.get_added_tokens_decoder().items()}
    parts, text, learning = [], [], False
    for i, trained in zip([*sample.ids, -1], [*sample.mask, False]):
        if i in special or trained != learning or i < 0:
            parts.append(encoder.decode(text))
            text = []
        if trained != learning:
            parts.append("⟦" if trained else "⟧")
            learning = trained
        if i in special:
            parts.append(f"{{{special[i]}}}")
        else:
            text.append(i)
    return "".join(parts)
