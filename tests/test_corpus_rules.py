"""Rules of cleaning: each takes what it is for and leaves its look-alike; presets; reports; counts by file; workers."""

import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from zhtune import assets
from zhtune.artifact import Artifact
from zhtune.cli import main
from zhtune.corpus import signals
from zhtune.corpus.boilerplate import LineCounts, line_keys
from zhtune.corpus.char_model import CharModel, fit
from zhtune.corpus.clean_page import REASONS
from zhtune.corpus.encodings import decode
from zhtune.corpus.filters import _LIMITS, Rules, read_rules, refusal
from zhtune.corpus.mojibake import mend
from zhtune.corpus.prepare import Settings, prepare
from zhtune.corpus.read import read_files
from zhtune.corpus.script import is_traditional, simplified
from zhtune.errors import ConfigError, ZhtuneError
from zhtune.parallel import in_order, spread
from zhtune.records import Document
from zhtune.stages.clean import CleanConfig, clean
from zhtune.stages.lint import LintConfig, lint
from zhtune.text import URL, normalise

SHIPPED = assets.root() / "scripts" / "corpus" / "zh"
PRESETS = assets.root() / "scripts" / "presets"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "corpus"
LAW = normalise(json.loads((SHIPPED / "laws_health.jsonl").read_text("utf-8").split("\n")[0])["text"])
STORY = normalise((SHIPPED / "luxun_nahan.txt").read_text("utf-8"))[:3000]
CLASSIC = normalise(decode((SHIPPED / "tcm_shanghanlun.txt").read_bytes())[0])[:3000]
POEM = "床前明月光，\n疑是地上霜。\n举头望明月，\n低头思故乡。"
PRAISE = "这家店的红烧肉肥而不腻，服务员也很热情，下次还来。"
PYTHON = "## 安装\n\n安装前请先确认 Python 的版本，然后运行下面的命令：\n\n```bash\npip install torch==2.1 --index-url https://a.org/whl\n```\n\n`a = [x for x in range(10)]` 得到一个列表，元素为 0 到 9。"
TALK = "问：高血压患者能吃党参吗？\n答：您好，可以少量服用，请遵医嘱，并定期监测血压。"
JAPANESE = "今日は朝から雨が降っていたので、家で本を読んで過ごしました。明日は晴れるといいですね。"
NAVIGATION = "首页\n新闻\n财经\n体育\n娱乐\n科技\n汽车\n房产\n教育\n健康\n旅游\n登录\n注册\n" * 2
SPAM = "澳门新葡京娱乐城真人荷官百家乐老虎机，注册送彩金，首存返水，六合彩时时彩北京赛车，加微信abc。" * 2
NUMBERS = "".join(f"2023年{i}月 10{i}23 45{i}.6 78{i}9 12{i}34；" for i in range(1, 13))
TABLE = "│甲│├─┤│乙│" * 30
REPEATED = "患者自诉头痛三天，未予重视，今来就诊。" * 20

# rule -> (refused by it, kept by it although alike)
PAIRS = {
    "min_characters": ("短。", LAW), "min_han": ("This is English, 中文 only twice. " * 5, LAW), "max_kana": (JAPANESE, "「の」是日语里最常见的助词，用法和汉语的“的”有些相似，学日语的人都要学。"),
    "max_garbled": ("锟斤拷\ufffd\ufffd\ufffd\ufffd这是一段坏掉的文字，\ufffd\ufffd读不出来了。", LAW), "max_digits": (NUMBERS, LAW), "max_symbols": (TABLE, PYTHON),
    "min_terminal": (NAVIGATION, STORY), "max_short_lines": (NAVIGATION, LAW), "max_repeated_lines": ("同样的一行字又来了一遍。\n" * 9 + "不同的一行。", STORY),
    "max_repetition": (REPEATED, LAW), "max_adverts": (SPAM, "澳门博彩业税收去年增长，政府表示将规范娱乐城的经营。" + LAW[:300]),
}


@pytest.mark.parametrize("rule", PAIRS)
def test_each_rule_of_a_preset_takes_what_it_is_for_and_leaves_its_look_alike(rule):
    web = read_rules(PRESETS / "web.yaml", {})
    only = Rules(**{"min_characters": 0, "min_han": 0.0, rule: getattr(web, rule)})
    bad, good = PAIRS[rule]
    reason = {name: reason for reason, name in _LIMITS.values()}[rule]
    assert refusal(bad, only)[0] == reason and refusal(good, only) is None and reason in REASONS
    assert set(PAIRS) == {name for _, name in _LIMITS.values()}


GOOD = {"web": [LAW[:2000], STORY], "prose": [LAW, STORY], "technical": [PYTHON, LAW], "dialogue": [TALK, PRAISE], "classical": [POEM, CLASSIC], "short": [PRAISE, "百公里加速5.6秒，值不值？"]}


@pytest.mark.parametrize("preset", GOOD)
def test_presets_keep_their_kind_and_drop_what_is_bad(preset):
    settings = Settings(read_rules(PRESETS / f"{preset}.yaml", {}))
    assert [prepare(Document("a", text, {"file": "a"}), settings).reason for text in GOOD[preset]] == ["", ""]
    bad = [JAPANESE, "\ufffd" * 20 + PRAISE, "Lorem ipsum dolor sit amet, consectetur adipiscing elit.", "。"]
    assert "" not in [prepare(Document("a", text, {"file": "a"}), settings).reason for text in bad]


def test_all_presets_are_shipped_and_unknown_rules_are_refused(tmp_path):
    assert {path.stem for path in PRESETS.glob("*.yaml")} == set(GOOD)
    with pytest.raises(ConfigError, match="rules has no field 'min_hann'; did you mean 'min_han'"):
        read_rules(None, {"min_hann": 1})
    with pytest.raises(ConfigError, match="the rule max_digits is a share from 0 to 1, not 30"):
        read_rules(None, {"max_digits": 30})
    (tmp_path / "in.txt").write_text(LAW, "utf-8")
    for fields, message in (({"preset": "shipped:wbe"}, "--preset shipped:wbe is no preset and no YAML file; presets are: shipped:classical, shipped:dialogue, shipped:prose, shipped:short, "),
                            ({"preset": "web"}, "--preset web is no preset"), ({"rules": {"min_percentile": 0.1}}, "--good"), ({"good": str(tmp_path / "in.txt")}, "at least 100")):
        with pytest.raises(ConfigError, match=message):
            clean(CleanConfig(input=str(tmp_path / "in.txt"), out=str(tmp_path / "o"), **fields))
    assert not (tmp_path / "o").exists()


def test_signals_by_hand():
    assert signals.shares("汉字 ab12か#\ue000。") == {"garbled": 0.1, "characters": 10, "han": 0.2, "kana": 0.1, "digits": 0.2, "symbols": 0.1}
    assert signals.line_shares("一二三四五六七八九十。\n\n 短\n短\n") == {"terminal": 1 / 3, "short_lines": 2 / 3, "repeated_lines": 1 / 13}
    assert signals.repetition("一二三四五六七八九十" * 2) == 0.5 and signals.repetition("一二三四五六七八九" * 1 + "天地") == 0.0
    assert signals.adverts("百家乐 与时时彩下注") == 8 / 9 and signals.adverts("") == signals.adverts("六合彩") == 0.0 and signals.adverts("百家乐老虎机") == 1.0
    assert signals.repetition("for (int i = 0; i < n; i++) { }\n" * 9) == 0.0


@pytest.mark.parametrize(("rule", "good", "bad"), [
    # poems have short lines, each with its mark                  a menu has none
    ("max_short_lines", "娟娟侵鬓妆痕浅。\n双颦相媚弯如翦。\n风雨送春归，\n飞雪迎春到，\n已是悬崖百丈冰，", NAVIGATION),
    # a review without its last full stop
    ("min_terminal", "酒店位置还可以，楼下过马路就是海边，早餐很好，只是隔音差一些", "酒店首页\n客房预订\n会议设施\n联系我们\n站内搜索"),
    # terms and clauses of a statute come again; sentences do not
    ("max_repetition", "".join(f"有第{i}项情形的，由县级以上人民政府财政部门责令改正，没收{chr(0x4E00 + 9 * i)}{chr(0x5E00 + 7 * i)}所得，追究负责人的{chr(0x6E00 + 5 * i)}责任。"
                               for i in range(20)), "要看" * 33),
    ("max_repetition", "道指成交量报4.6亿股（上一日为2.75亿），纳指成交量报25.96亿股（上一日为17.89亿），标普成交量报28亿股（上一日为20亿）。", REPEATED),
    # a medicine that is called so                                                     several such words
    ("max_adverts", "仙茸壮阳口服液\n别名:仙茸壮阳精\n用法用量:口服，一次10ml，一日2次。", SPAM),
    ("max_digits", "【票房破300亿】据数据，截至23日下午15:16分，当日票房过9100万时，2019年度总票房破300亿元，晚于2018年6月16日。", NUMBERS),
    ("max_garbled", "禁忌证：出血性病症、妊娠及哺乳期妇女。" * 20 + "\ue5e5", "出血性病\ufffd，妊\ufffd及哺乳期妇女禁用。"),
    ("max_symbols", "执行器\n" + "*" * 24 + "\n该选项用于调试。如果程序中转换图的某些子图失去连接，则结果可能会出错，可以将这些断开连接的子图打印到指定的文件中，以便查看。"
     "如果不需要打印，设为空即可，缺省值为空。", TABLE),
])
def test_what_reading_four_hundred_documents_showed_to_be_wrong_stays_and_its_look_alike_goes(rule, good, bad):
    only = Rules(**{"min_characters": 0, "min_han": 0.0, rule: getattr(read_rules(PRESETS / "web.yaml", {}), rule)})
    assert refusal(normalise(good), only) is None and refusal(normalise(bad), only) is not None


def test_urls_stop_at_han():
    text = "详见https://a.com/x?y=1，谢谢大家。见http://b.cn/路径，www.c.com。邮箱a@www.d.com，(https://e.org/f_(g))"
    assert URL.sub("", text) == "详见，谢谢大家。见路径，。邮箱a@www.d.com，())"
    assert URL.findall("详见https://a.com/x，谢谢大家支持下一句") == ["https://a.com/x"] and URL.findall("版本 1.2.3，a/b") == []


def test_the_gate_lets_only_traditional_text_be_converted():
    pytest.importorskip("opencc")
    traditional = "資訊安全管理辦法：各機關應設專責人員，看著程式覆蓋檔案，皇后的頭髮後來乾燥了。甚麼都不顯著。"
    assert is_traditional(traditional)
    assert simplified(traditional) == "资讯安全管理办法：各机关应设专责人员，看着程式覆盖档案，皇后的头发后来干燥了。什么都不显著。"
    for text in (LAW, STORY, CLASSIC, "效果显著，著名的乾隆皇帝瞭望藉口，於姓。", ""):
        assert not is_traditional(text)
    rules = Rules(script="simplified", original=True)
    kept = prepare(Document("a", traditional, {"file": "a"}), Settings(rules)).document
    assert kept.metadata == {"file": "a", "script": "traditional", "original": traditional} and kept.text == simplified(traditional)
    hidden = Settings(Rules(script="simplified", original=True, personal="mask"))
    kept = prepare(Document("a", traditional + "電話13912345678", {"file": "a"}), hidden).document
    assert "139" not in kept.text + kept.metadata["original"]
    refused = prepare(Document("a", "13912345678", {"file": "a"}), hidden)
    assert (refused.reason, refused.details) == ("too_short", {"text": "【手机号】", "value": 11})
    assert prepare(Document("a", "效果显著，著名的乾隆皇帝瞭望四方，找不到藉口。", {"file": "a"}), Settings(rules)).document.text == "效果显著，著名的乾隆皇帝瞭望四方，找不到藉口。"


def test_mojibake_is_read_back_or_refused():
    rules = Settings(Rules(mojibake=True))
    back = prepare(Document("a", LAW[:200].encode().decode("latin-1"), {"file": "a"}), rules)
    assert back.document.text == LAW[:200].strip() and mend(STORY) == STORY
    assert prepare(Document("a", "锟斤拷锟斤拷，门诊时间锟斤拷烫烫烫烫，请问锟斤拷。", {"file": "a"}), rules).reason == "mojibake"
    assert prepare(Document("a", "乱码“锟斤拷”是怎么来的？" + LAW[:800], {"file": "a"}), rules).reason == ""


def test_navigation_that_documents_share_goes_and_headings_stay():
    pages = [f"当前位置：首页 > 新闻\n第一章 总则\n本报第{i}号消息。\n" + "".join(f"这是第{i}篇的第{n}段，内容各不相同。\n" for n in range(8))
             + f"责任编辑：王{i % 2}\n上一篇：无\n相关推荐\n扫码关注我们的公众号，每天都有新内容。" for i in range(6)]
    counts = LineCounts()
    for page in pages:
        counts.add(line_keys(page))
    left = counts.without(pages[3], 5)
    gone = [line for line in pages[3].split("\n") if line not in left.split("\n")]
    assert gone == ["当前位置：首页 > 新闻", "责任编辑：王1", "上一篇：无", "相关推荐", "扫码关注我们的公众号，每天都有新内容。"]
    assert "第一章 总则" in left and "本报第3号消息。" in left and counts.without(pages[3], 7) == pages[3]
    laws = [f"某某晚报网\n第 {i} 條\n2001年{i}月3日 国务院令第{i}号公布\n药品类型:抗凝血药\n---\n返回\n" + "".join(f"第{i}部的第{n}款。\n" for n in range(8)) + "```" for i in range(6)]
    counts = LineCounts()
    for law in laws:
        counts.add(line_keys(law))
    assert counts.without(laws[3], 5) == laws[3].removeprefix("某某晚报网\n")       # the name of a site goes, what is the document's own stays
    assert counts.without(LAW, 1) != "" and LineCounts().without(LAW, 1) == LAW


def test_the_character_model_knows_good_text_from_shuffled():
    model = CharModel()
    model.add("一一一一")
    chances = [(4 + 4 / 20_000) / (4 + 4)]                  # 一: 4 of 4, with 4 pseudo-counts of 1/20,000
    chances += [(3 + 4 * chances[0]) / (4 + 4)]             # 一一: 3 times after 4 times 一
    chances += [(2 + 4 * chances[1]) / (3 + 4)]
    chances += [(1 + 4 * chances[2]) / (2 + 4)]
    assert model.bits("一一 一一") == pytest.approx(-sum(map(math.log2, chances)) / 4)
    assert CharModel().bits("字" * 9) == pytest.approx(math.log2(20_000)) and model.bits("一") == 0.0
    book = normalise((SHIPPED / "luxun_nahan.txt").read_text("utf-8"))
    passages = [(str(i), book[i * 200:(i + 1) * 200]) for i in range(300)]
    fitted, limit = fit(passages, 0.02)
    other = book[300 * 200:300 * 200 + 400]
    assert fitted.bits(other) < limit < fitted.bits("".join(random.Random(0).sample(other, 400)))
    halved = fit(passages, 0.5)[1]
    assert halved < limit and fit([("a", STORY)], 0.02) is None
    rules = Settings(Rules(min_percentile=0.02), (fitted, limit))
    assert prepare(Document("a", "".join(random.Random(0).sample(other, 400)), {"file": "a"}), rules).reason == "unlike_good"
    assert prepare(Document("a", other, {"file": "a"}), rules).reason == ""


def corpus(folder):
    """Files of several kinds with good and bad documents."""
    folder.mkdir()
    (folder / "a.txt").write_text(LAW, "utf-8")
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (STORY, SPAM * 3, JAPANESE * 2, STORY, "联系王先生13912345678，" + CLASSIC)) + "{", "utf-8")
    (folder / "c.html").write_text(f"<title>t</title><p>{LAW[:900].replace(chr(10), '<br>')}</p>", "utf-8")
    return folder


def test_every_file_gives_in_equals_kept_and_dropped_and_examples_are_shown(tmp_path, capsys):
    folder = corpus(tmp_path / "in")
    assert main(["clean", "--input", str(folder), "--preset", "shipped:web", "--rules", '{"max_adverts": 0.04}', "--report_only", "--out", str(tmp_path / "r")]) == 0
    told = capsys.readouterr().err
    assert "b.jsonl:6: not valid JSON" in told and told.count("b.jsonl:6") == 1       # a place is said once
    report = json.loads((tmp_path / "r" / "report.json").read_text("utf-8"))
    assert report["files"] == {"a.txt": {"in": 1, "kept": 1}, "b.jsonl": {"in": 6, "kept": 2, "adverts": 1, "other_script": 1, "duplicate": 1, "truncated": 1}, "c.html": {"in": 1, "kept": 1}}
    assert report["reasons"]["adverts"]["examples"][0]["id"] == "b.jsonl:2" and report["reasons"]["other_script"]["examples"][0]["value"] > 0.5
    assert "of 8 documents 4 would be kept" in told and "other_script" in told and "今日は" in told and report["rules"]["max_adverts"] == 0.04
    assert report["signals"]["han"]["50%"] > 0.5 and "清洗报告" in (tmp_path / "r" / "report.html").read_text("utf-8")
    made = Artifact.open(tmp_path / "r")
    assert made.kind == "report" and not list(made.path.glob("*.parquet"))
    made = clean(CleanConfig(input=str(folder), preset="shipped:web", out=str(tmp_path / "o"), heldout=0, licence="CC0-1.0"))
    assert made.manifest["metrics"]["masked"] == {"mobile_phone": 1} and made.manifest["licences"] == ["CC0-1.0"]
    assert any("联系王先生【手机号】" in row["text"] for row in pq.read_table(made.path / "part-00000.parquet").to_pylist())
    dropped = clean(CleanConfig(input=str(folder), rules={"personal": "drop"}, out=str(tmp_path / "p"), heldout=0)).manifest["counts"]["dropped"]
    assert dropped["personal"] == 1


def test_lint_tells_of_a_corpus_what_clean_would_and_writes_none(tmp_path, capsys):
    folder = corpus(tmp_path / "in")
    (folder / "d.txt").write_bytes((LAW[:900] + "尾声。").encode("gb18030"))
    (folder / "e.jsonl").write_text(json.dumps({"text": CLASSIC[:600].encode("utf-8").decode("latin-1")}) + "\n", "utf-8")
    assert main(["lint", "--corpus", str(folder), "--out", str(tmp_path / "r")]) == 0
    told, report = capsys.readouterr().err, json.loads((tmp_path / "r" / "report.json").read_text("utf-8"))
    assert report["files"]["b.jsonl"] == {"in": 6, "kept": 1, "adverts": 1, "other_script": 1, "personal": 1, "truncated": 1, "near_duplicate": 1}
    notes = {"b.jsonl": {"traditional": 1}, "d.txt": {"gb18030": 1}, "e.jsonl": {"mended": 1}}
    assert report["notes"] == notes and "also found: traditional 1, gb18030 1, mended 1" in told
    made = Artifact.open(tmp_path / "r")
    assert made.kind == "report" and made.manifest["stage"] == "lint" and not list(made.path.glob("*.parquet"))
    whole = clean(CleanConfig(input=str(folder), preset="shipped:web", out=str(tmp_path / "o"), max_characters=1000, heldout=0.5))
    counts = lint(LintConfig(corpus=str(whole.path), out=str(tmp_path / "again"))).manifest["counts"]           # an artifact, held-out pieces too
    assert counts["in"] == sum(pq.read_metadata(path).num_rows for path in whole.path.glob("*.parquet")) > whole.manifest["counts"]["kept"]


def test_any_number_of_workers_gives_the_same_bytes(tmp_path):
    folder = corpus(tmp_path / "in")
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": f"{i}号" + STORY[i:] + LAW[i * 7:i * 7 + 3000]}) + "\n" for i in range(100)), "utf-8")
    config = {"input": str(folder), "preset": "shipped:web", "max_characters": 1000}
    one, three = (clean(CleanConfig(**config, workers=n, out=str(tmp_path / str(n)))) for n in (1, 3))
    assert one.digest == three.digest and one.manifest["counts"]["in"] == 108


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_no_process_goes_on_when_its_parent_has_ended(ended_by):
    script = "import os, time; from zhtune.parallel import spread; spread(lambda i: (os.write(1, b'.'), time.sleep(.3)), list(range(200)), 2)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stdout.read(1) == b"."
    (os.killpg if ended_by == signal.SIGINT else os.kill)(process.pid, ended_by)
    begun, said = process.communicate(timeout=15)           # ends when nobody holds the pipe; all the work would take 30 s
    assert process.returncode == -ended_by and len(begun) < 50 and said.count(b"Traceback") == (ended_by == signal.SIGINT)


def test_a_killed_process_is_said_in_one_line():
    with pytest.raises(ZhtuneError, match="a worker process was killed"):
        list(in_order(lambda item: os.kill(os.getpid(), 9), range(9), lambda item: 1 << 19, 2))
    with pytest.raises(ZhtuneError, match="a worker process was killed"):
        spread(lambda item: os.kill(os.getpid(), 9), [1, 2], 2)
    assert spread(lambda item: [item, os.getpid()], [3, 4], 1) == [[3, os.getpid()], [4, os.getpid()]]
    assert list(in_order(lambda item: item * 2, range(9), lambda item: 1 << 18, 2)) == [0, 2, 4, 6, 8, 10, 12, 14, 16]


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/corpus")
@pytest.mark.parametrize(("file", "preset", "fields", "least"), [
    ("laws_prc.jsonl", "prose", [], 0.95), ("drug_monographs.jsonl", "prose", [], 0.95), ("csl_abstracts.jsonl", "prose", ["abst"], 0.95), ("paddle_docs_zh.jsonl", "technical", [], 0.95),
    ("poetry/poet.tang.1000.json", "classical", ["paragraphs"], 0.95), ("toyhom_internal_medicine_gb18030.csv", "dialogue", ["ask", "answer"], 0.95)])
def test_presets_keep_good_real_text(file, preset, fields, least):
    settings = Settings(read_rules(PRESETS / f"{preset}.yaml", {}))
    documents = [d for d in read_files([SHARED / file], fields) if isinstance(d, Document)][::13]
    kept = sum(prepare(d, settings).document is not None for d in documents)
    assert kept >= least * len(documents)
