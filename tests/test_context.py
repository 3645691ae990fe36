"""RoPE scaling by hand-computed frequencies, what is refused, and bits per character by position."""

import json
import math

import pytest

from zhtune.errors import ConfigError, DataError
from zhtune.models import bits
from zhtune.models.context import context_of, require_context, scaled
from zhtune.models.shapes import write_shape

torch = pytest.importorskip("torch")

from zhtune.models.bits import bits_by_position, bits_per_character, long_windows
from zhtune.models.load import load_model
from zhtune.stages.extend import ExtendConfig, extend
from zhtune.templates.encode import ChatEncoder

LLAMA = {"model_type": "llama", "max_position_embeddings": 512, "rope_theta": 10000.0}
TEXT = "高血压患者应当少吃盐，多运动，按时服药，定期测量血压。\n"


def test_a_config_is_scaled_and_says_its_context():
    for scaling, says in (("linear", 2048), ("yarn", 2048), ("dynamic", 512)):
        longer = scaled(LLAMA, scaling, 2048)
        assert longer["max_position_embeddings"] == says and context_of(longer) == 2048 and "rope_theta" not in longer
        assert longer["rope_parameters"] == {"rope_theta": 10000.0, "rope_type": scaling, "factor": 4.0} | (
            {"original_max_position_embeddings": 512} if scaling == "yarn" else {})
    assert context_of({"model_type": "bloom"}) == 2048 and context_of({"model_type": "chatglm-6b", "max_sequence_length": 1024}) == 1024


@pytest.mark.parametrize("config, context, words", [
    ({"model_type": "bloom"}, 4096, "BLOOM has ALiBi in place of RoPE"), (LLAMA, 512, "no longer than the model's own context of 512"),
    (LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}, 4096, r"is scaled already \(linear\)"),
    ({"model_type": "gpt2", "max_position_embeddings": 512}, 4096, "a gpt2 model has no RoPE")])
def test_what_cannot_be_scaled_is_refused(config, context, words):
    with pytest.raises(ConfigError, match=words):
        scaled(config, "yarn", context)


def test_a_length_beyond_the_context_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"--block 513 is beyond the model's context of 512 tokens; .*zhtune extend --rope yarn --context 513"):
        require_context(LLAMA, "--block", 513)


def test_transformers_computes_what_the_papers_say(tmp_path):
    """Head width 16, theta 10000, factor 4: inverse frequencies of each scaling."""
    write_shape("llama-tiny", tmp_path / "base")
    plain = [10000 ** (-2 * i / 16) for i in range(8)]

    def frequencies(scaling, length=4):
        config = scaled(json.loads((tmp_path / "base" / "config.json").read_text()), scaling, 2048)
        (tmp_path / "base" / "config.json.kept").write_text((tmp_path / "base" / "config.json").read_text())
        (tmp_path / "base" / "config.json").write_text(json.dumps(config))
        model = load_model(tmp_path / "base")
        (tmp_path / "base" / "config.json.kept").replace(tmp_path / "base" / "config.json")
        rotary = model.model.rotary_emb
        rotary(torch.zeros(1), torch.tensor([[length - 1]]))
        return rotary.inv_freq.tolist()
    assert frequencies("linear") == pytest.approx([f / 4 for f in plain])
    assert frequencies("dynamic") == pytest.approx(plain)   # short texts as before
    base = 10000 * (4 * 1024 / 512 - 3) ** (16 / 14)
    assert frequencies("dynamic", 1024) == pytest.approx([base ** (-2 * i / 16) for i in range(8)])
    # YaRN: dimensions that turn more than 32 times in 512 positions stay, those below once are divided by 4, between them a ramp
    low, high = (math.floor if first else math.ceil for first in (True, False))
    bound = [16 * math.log(512 / (turns * 2 * math.pi)) / (2 * math.log(10000)) for turns in (32, 1)]
    low, high = max(low(bound[0]), 0), min(high(bound[1]), 15)
    ramp = [min(max((i - low) / (high - low), 0), 1) for i in range(8)]
    assert frequencies("yarn") == pytest.approx([f * (1 - r) + f / 4 * r for f, r in zip(plain, ramp)])


def test_bits_by_position_add_up_to_bits_of_the_whole(tmp_path):
    write_shape("llama-tiny", tmp_path)
    model, encoder = load_model(tmp_path), ChatEncoder(tmp_path)
    text = TEXT[:-1]
    ids = [encoder.end_id, *encoder.text_ids(text)]
    spans = bits_by_position(model, encoder, [ids], spans=3)
    assert [(first, last) for first, last, _ in spans] == [(1, 27), (28, 54), (55, 81)] and len(ids) == 82     # 81 bytes, 27 characters
    total = sum(bits * 9 for _, _, bits in spans)           # nine characters each: three bytes a character
    assert total == pytest.approx(27 * bits_per_character(model, encoder, [text]), rel=1e-5)
    with pytest.raises(DataError, match="has 82 tokens, one window of the new context takes 100"):
        long_windows(encoder, [text], 100, 4)
    assert [window[0] for window in long_windows(encoder, [text] * 9, 82, 2)] == [ids[1]] * 2


@pytest.mark.parametrize("scaling", ["linear", "dynamic", "yarn"])
def test_extend_makes_the_context_longer_and_measures_it(tmp_path, scaling):
    (tmp_path / "texts").mkdir()
    for i in range(3):
        (tmp_path / "texts" / f"{i}.txt").write_text(TEXT * 12, "utf-8")
    made = extend(ExtendConfig(model="new:llama-tiny", rope=scaling, context=768, windows=1, corpus=str(tmp_path / "texts"), out=str(tmp_path / scaling)))
    report = json.loads((made.path / "report.json").read_text())
    rows = report["bits_per_character_by_position"]
    assert len(rows) == 8 and rows[-1]["to"] == 767 and all(row["before"] > 0 and row["after"] > 0 for row in rows)
    if scaling == "dynamic":                                # one window is read at one length, so all its positions differ
        assert rows[0]["before"] != rows[0]["after"]
    assert made.manifest["metrics"]["context"] == 768 and made.manifest["metrics"]["context_before"] == 512
    assert context_of(load_model(made.path).config.to_dict()) == 768
    assert ChatEncoder(made.path).end_id == 2
    with pytest.raises(ConfigError, match="is scaled already"):
        extend(ExtendConfig(model=str(made.path), rope="yarn", context=4096, out=str(tmp_path / "twice")))


def test_extend_takes_a_vocabulary_or_a_context():
    for fields, words in (({}, "one of --vocab"), ({"vocab": "v", "rope": "yarn", "context": 9}, "one of --vocab"),
                          ({"rope": "yarn"}, "--rope and --context are given together"), ({"vocab": "v", "corpus": "c"}, "--corpus only with them")):
        with pytest.raises(ConfigError, match=words):
            ExtendConfig(model="m", out="o", **fields)


def test_alibi_and_grouped_queries_answer_without_special_care(tmp_path):
    """BLOOM has no max_position_embeddings; a batch of unequal lengths equals one by one."""
    from contextlib import closing

    from transformers import BloomConfig, BloomForCausalLM

    from zhtune import references
    from zhtune.models.engine import Sampling
    from zhtune.models.open import open_engine
    write_shape("llama-tiny", tmp_path)                     # four heads, two of keys and values: its tokenizer stays
    torch.manual_seed(0)
    BloomForCausalLM(BloomConfig(vocab_size=259, hidden_size=64, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=2, pad_token_id=0)).save_pretrained(tmp_path)
    with closing(open_engine(references.resolve(str(tmp_path)))) as engine:
        asked = [[{"role": "user", "content": text}] for text in ("短", "长一点的问题？", "a" * 40)]
        together = engine.generate(asked, Sampling(max_tokens=16))
        assert engine.context == 2048 and together == [engine.generate([messages], Sampling(max_tokens=16))[0] for messages in asked]


def test_windows_are_cut_from_long_texts_and_from_short_ones_only_where_there_is_no_long_one():
    assert bits.windows(["abcdefg", "xy"], 9, 0, size=3) == ["abc", "def"]
    assert bits.windows(["ab", "c", "de"], 9, 0, size=3) == ["ab\n", "c\nd"]
    assert bits.windows(["a"], 9, 0, size=3) == []
