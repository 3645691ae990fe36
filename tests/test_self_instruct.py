"""self-instruct: replies taken apart, filters that keep good Chinese, records from a teacher, killed and begun again."""

import hashlib
import json
import random
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from fake_teacher_server import FakeTeacher

from zhtune import SelfInstructConfig, assets, self_instruct
from zhtune.errors import ConfigError, DataError
from zhtune.records import read_jsonl, write_jsonl
from zhtune.synthesis.chinese_filters import answer_refusal, instruction_refusal, language_refusal
from zhtune.synthesis.novelty import NoveltyIndex
from zhtune.synthesis.self_instruct import _LEANS_ON_TEXT, PROMPTS, Pool, batches, documents, evolve, read_seeds, work_out
from zhtune.synthesis.teachers.asking import Asking, Prompt
from zhtune.synthesis.teachers.joblog import JobLog
from zhtune.synthesis.teachers.limits import Limits
from zhtune.synthesis.teachers.replies import Refused, Task, parse_steps, parse_tasks, split_thinking
from zhtune.synthesis.teachers.teacher import LocalTeacher, TeacherStopped

FOLDER = assets.shipped("self_instruct")
CARDS = "劈柴 喂马 缝衣 酿酒 磨刀 晒盐 编筐 打铁 放羊 养蚕 挖井 修桥 捕鱼 采茶 烧炭 染布 织网 抄书 种豆 铺路".split()
FRAMES = ("{0}之前要准备哪些工具？", "讲讲古人{0}的一天，不超过五十字。", "“{0}”可以引申出什么道理", "替{0}的师傅拟一句招牌话。", "比较手工与机器{0}的得失")

QUESTIONS = ("竹子为何空心？", "谁发明了活字印刷", "说说冬至吃什么", "海带怎样泡发？", "火车轨道下为什么铺石子？", "列举三种弦乐器", "鲸鱼是鱼吗", "解释复利",
             "茶叶怎么保存不受潮？", "翻译成英文：祝你好运", "十的平方根约是多少", "北斗七星在哪里？")


def read(name):
    return Prompt.read(FOLDER, name, PROMPTS[name])


def shapes(parsed):
    return ([(t.instruction, t.given, t.output) for t in parsed if isinstance(t, Task)], [r.reason for r in parsed if isinstance(r, Refused)])


@pytest.mark.parametrize(("reply", "finish", "tasks", "refused"), [
    # Alpaca's and BELLE's batches: numbers and colons full-width, no input in words, text over several lines
    ("好的：\n###\n１．指令：写一首诗\n１．输入：<无输入>\n１．输出：春天来了\n\n第二段\n###\n2. 指令: 翻译\n2. 输入:\nhello\n2. 输出:\n你好\n", "stop",
     [("写一首诗", "", "春天来了\n\n第二段"), ("翻译", "hello", "你好")], []),
    # the limit cut the last task: it is dropped by name, even if it looks whole
    ("###\n1. 指令：甲\n1. 输入：无\n1. 输出：一\n###\n2. 指令：乙\n2. 输入：无\n2. 输出：二三", "length", [("甲", "", "一")], ["cut"]),
    ("1. 指令：甲\n1. 输出：一\n2. 指令：乙\n2. 输入：材料", "stop", [("甲", "", "一")], ["cut"]),
    ("1. 指令：甲\n1. 输入：材料\n2. 指令：乙\n2. 输出：二", "stop", [("乙", "", "二")], ["incomplete"]),
    # an answer may hold lines that look like headers
    ("1. 指令：写一段伪代码\n1. 输入：<无输入>\n1. 输出：读入数字\n输入：3\n输出：9\n问题：为什么？", "stop",
     [("写一段伪代码", "", "读入数字\n输入：3\n输出：9\n问题：为什么？")], []),
    ("**1. Instruction:** 写诗\n**Input:** None\n**Output:** 好\n\n**2. Instruction:** 作文\n**Output:** 行", "stop", [("写诗", "", "好"), ("作文", "", "行")], []),
    ("```\n1. 指令：甲\n1. 输出：一\n```", "stop", [("甲", "", "一")], []),
    # JSON: a list between fences, an item with a comma too many, other keys, a cut last item
    ('```json\n[{"instruction":"甲问","input":"","output":"一"},\n{"instruction":"乙问","output":"二",},\n{"指令":"丙问","输出":"三"},{"instruction":"丁', "length",
     [("甲问", "", "一"), ("乙问", "", "二"), ("丙问", "", "三")], ["cut"]),
    # JSON lines, one of them with full-width signs and curly quotes, a number as an answer, a broken one in the middle
    ('｛“instruction”：“写信”，“input”：“”，“output”：“您好，张三：见信好”｝\n{"question": 丁}\n{"question": "1+4=？", "answer": 5}', "stop",
     [("写信", "", "您好，张三：见信好"), ("1+4=？", "", "5")], ["broken_json"]),
    ('{"tasks": [{"instruction": "甲", "output": ["一", "二"]}, {"instruction": "乙"}]}', "stop", [("甲", "", "一\n二")], ["incomplete"]),
    ('{"instruction": "写代码", "output": "```python\\nd = {\\"a\\": 1}\\n```"}', "stop", [("写代码", "", '```python\nd = {"a": 1}\n```')], []),
    ("我想不出任务。", "stop", [], ["no_task"]), ("", "stop", [], ["no_answer"]), ("<think>想啊想", "length", [], ["only_thinking"]),
    ("<think>{\"instruction\": \"假\", \"output\": \"假\"}</think>\n{\"instruction\": \"真\", \"output\": \"是\"}", "stop", [("真", "", "是")], []),
])
def test_what_models_return(reply, finish, tasks, refused):
    assert shapes(parse_tasks(reply, finish)) == (tasks, refused)


@pytest.mark.parametrize(("written", "meant"), [
    (r"$\frac{1}{2} \times 3$，\beta", r"$\frac{1}{2} \times 3$，\beta"), (r"\alpha \( x \) \underline{x}", r"\alpha \( x \) \underline{x}"),
    (r"\\frac{1}{2} \\times \\nu \\n", r"\frac{1}{2} \times \nu \n"), (r"\u4e2d\"\/", '中"/'), (r"\rho\right\r\n\bar", "\\rho\\right\n\\bar"),
    (r"一\nabc\nthe\texture\nabla f\tto \to \text{x}\text", "一\nabc\nthe\texture\\nabla f\tto \\to \\text{x}\text"),
    (r"a\neq b，\not=，\neq = 3\nu = 1\ne", "a\\neq b，\\not=，\neq = 3\nu = 1\ne"), (r"$\nu$ 和 \(x\ne\tan y\)\nu\ne", "$\\nu$ 和 \\(x\\ne\\tan y\\)\nu\ne"),
    (r"$$\nu = 1 \nu$$", "$$\nu = 1 \\nu$$"), (r"$$a \\to b\nu$$", "$$a \\to b\nu$$"),
    (r"n=$1\ni=1\nwhile [ $i -le $n ]", "n=$1\ni=1\nwhile [ $i -le $n ]"), (r"每件$5\nu盘", "每件$5\nu盘")])
def test_latex_in_json_keeps_its_backslashes_and_lines_stay_lines(written, meant):
    assert shapes(parse_tasks(f'{{"instruction":"求值","output":"{written}"}}')) == ([("求值", "", meant)], [])
    curly = parse_tasks("｛“instruction”：“求值”，“output”：“\\frac 与 \\\\to”｝")
    assert shapes(curly) == ([("求值", "", r"\frac 与 \to")], [])


@pytest.mark.parametrize("reply", [
    "<think>x</think>好的，我先想。\n【步骤】一【答案】二", "好的：\n\n【步骤】\n一\n【答案】\n二", "```\n【步骤】一\n【答案】二\n```\n希望有用", "**【步骤】**\n一\n**【答案】：** 二",
    "先写【步骤】，再写【答案】。\n### 【步骤】\n一\n### **【答案】**\n二", "```markdown\n**【解题步骤】**：一\n```\n【最终答案】二"])
def test_steps_are_found_below_a_preamble_in_a_fence_and_in_bold(reply):
    assert parse_steps(reply) == ("一", "二")


@pytest.mark.parametrize("reply", ["<think>x</think>【答案】二", "【步骤】一【答案】二【答案】三", "【步骤】一【答案】二【步骤】三", "<think>x</think>【步骤】一"])
def test_an_answer_never_holds_headings(reply):
    assert parse_steps(reply).reason == "no_steps"


def test_thinking_is_split_off():
    assert parse_steps("【步骤】一\n【答案】\n```python\nx\n```") == ("一", "```python\nx\n```")
    assert split_thinking("<think>\n甲\n</think>\n\n乙") == ("甲", "乙")
    assert split_thinking("甲</think>乙") == ("甲", "乙")   # the template had opened the block
    assert split_thinking("<think>甲") == ("甲", "") and split_thinking("乙") == ("", "乙")
    assert split_thinking("<|begin_of_thought|>甲<|end_of_thought|><|begin_of_solution|>乙<|end_of_solution|>") == ("甲", "乙")
    assert parse_steps("【步骤】\n一加一\n【答案】\n2") == ("一加一", "2") and parse_steps("<think>一加一</think>2") == ("一加一", "2")
    assert parse_steps("2") == Refused("no_steps", "2") and parse_steps("【步骤】一", "length").reason == "cut"
    assert parse_steps("【步骤】一\n【答案】 ").reason == "no_answer"


GOOD = ["解释“画蛇添足”这个成语。", "91-33=", "翻译成中文：The quick brown fox jumps over the lazy dog near the river bank.", "CPU是什么", "讲个笑话",
        "画龙点睛和画蛇添足有什么不同？", "怎样给孩子拍照片更自然？", "写一段短视频脚本，介绍家乡的桥。", "豆包是怎么做的？", "动画片和电影有什么区别？",
        "请翻译这句日语：お疲れ様でした。", "照片和图片这两个词有什么区别？", "写一个函数，下载图片并改名。", "右附件囊肿怎么治疗？", "用 Python 画一条正弦曲线",
        "什麼是繁體字？請舉例說明。", "介绍清明上河图这幅名画的内容"]
BAD = {"Write a poem about spring.": "not_chinese", "ボルシチのレシピを教えて": "not_chinese", "……！": "instruction_short", "画一只猫": "modality",
       "根据下图回答问题。": "modality", "描述这张图片的内容。": "modality", "请绘制一张销量柱状图": "modality", "总结这篇文章：https://example.org/a": "link",
       "帮我订一张去北京的机票": "acts_in_the_world", "ChatGPT 和你谁更聪明？": "teacher_name", "写诗" * 120: "instruction_long", "，。，。，。": "no_words",
       "根据<|im_start|>写诗": "template_marker", "解释\ufffd\ufffd的意思": "garbled", " ": "no_instruction"}


def test_good_chinese_is_kept_and_the_rest_named():
    assert {text: reason for text in GOOD if (reason := instruction_refusal(text))} == {}
    assert {text: instruction_refusal(text) for text in BAD} == BAD
    assert instruction_refusal("翻译", "hello") is None and instruction_refusal("总结文章", "（此处插入文章内容）") == "placeholder"


@pytest.mark.parametrize(("answer", "reason"), [
    ("是", None), ("尊敬的客户：很抱歉，我们无法按时送达，请您谅解。", None), ("对不起，我来晚了。", None), ("Hello!", None), ("列表", None), ("哈哈哈哈哈哈哈哈哈哈哈哈哈哈", None),
    ("### 小标题\n正文", None), ("很抱歉，我无法回答这个问题。", "refuses"), ("抱歉，作为一个文本助手，我不能直接生成图像。", "refuses"),
    ("As an AI language model, I cannot", "refuses"), ("作为一个人工智能助手，我建议……", "speaks_as_model"), ("我是由OpenAI开发的模型", "speaks_as_model"),
    ("可以问 ChatGPT。", "teacher_name"), ("", "no_answer"), ("请写出三种可以回收的垃圾", "answer_echoes"), ("（文章内容）", "placeholder"),
    ("好的\n2. 指令：再写一个", "template_marker"), ("今天天气很好。" * 12, "loops"), ("长" * 4001, "answer_long")])
def test_answers(answer, reason):
    assert answer_refusal(answer, "请写出三种可以回收的垃圾。") == (None if reason is None else reason)


def test_the_seeds_are_175_tasks_of_many_kinds_that_pass_their_own_filters():
    rows = [row for _, row in read_jsonl(FOLDER / "seeds.jsonl")]
    kinds = Counter(row["kind"] for row in rows)
    assert len(rows) == len({row["id"] for row in rows}) == 175 and len(kinds) == 12 and min(kinds.values()) >= 6 and max(kinds.values()) <= 24
    assert sum(bool(row["input"]) for row in rows) == 58
    assert [row["id"] for row in rows if instruction_refusal(row["instruction"], row["input"])
            or answer_refusal(row["output"], row["instruction"], row["input"]) or language_refusal(row["instruction"])] == []
    assert [twin for twin in NoveltyIndex().admit_all(row["instruction"] for row in rows) if twin] == []


def test_prompts_have_strict_placeholders(tmp_path):
    prompts = {name: read(name) for name in PROMPTS}
    assert len({p.sha256 for p in prompts.values()}) == 6
    filled = prompts["deepen"].fill(way="甲", task="{{task}} {{way}}")[0]["content"]
    assert "改写的方法：甲。" in filled and "{{task}} {{way}}" in filled     # what a task holds is text
    (tmp_path / "steps.txt").write_text("做：{{tusk}}", "utf-8")
    with pytest.raises(ConfigError, match=r"steps\.txt must have the placeholders \{\{task\}\} and no other"):
        Prompt.read(tmp_path, "steps", ("task",))


# A local teacher: the real class, answering by a function.

def local(tmp_path, answer):
    def generate(conversations, *_):
        texts = [answer(messages[0]["content"]) for messages in conversations]
        return [SimpleNamespace(text=t, prompt_tokens=len(c[0]["content"]), completion_tokens=len(t), finish="stop") for t, c in zip(texts, conversations)]
    log = JobLog(tmp_path / "log.jsonl")
    return log, Asking(LocalTeacher("toy", generate, log), 500, 0.8, 0)


def pool(*tasks):
    refused = []
    made = Pool(NoveltyIndex(), lambda reason, **what: refused.append((reason, what)))
    for question, answer in tasks:
        assert made.offer(Task(question, "", answer), method="given", job="")
    return made, refused


def test_evolution_asks_deeper_and_every_fifth_broader(tmp_path):
    pairs = [(FRAMES[n].format(CARDS[n]), f"答{n}") for n in range(5)]
    made, refused = pool(*pairs)
    replies = iter(['{"instruction": "养蜂人怎样过冬？请列三点。", "output": "保温、留蜜、防潮。"}', '{"instruction": "把原任务写得更难", "output": "好"}',
                    json.dumps({"instruction": pairs[0][0], "output": "重复"}), '```json\n{"instruction": "竹子为何空心？", "output": "节省材料又结实。"}\n```',
                    '{"instruction": "介绍一种少见的乐器。", "output": "埙，陶制的吹奏乐器。"}'])
    log, asking = local(tmp_path, lambda _: next(replies))
    with log:
        evolve(asking, made, {name: read(name) for name in ("deepen", "broaden")}, 5)
    new = [record["source"] for record in made.records[5:]]
    assert [(s["method"], s["parent"]) for s in new] == [("deepen", 0), ("deepen", 3), ("broaden", 4)]
    assert [(reason, what.get("near")) for reason, what in refused] == [("talks_of_the_prompt", None), ("not_novel", "record-0")]


def test_questions_on_documents_must_quote_them(tmp_path):
    passage = "乌镇的水阁一半建在岸上，一半架在水中，由石柱或木桩支撑。居民推窗便可打水、买菜。" * 2
    replies = '{"question": "乌镇的水阁怎样支撑？", "answer": "用石柱或木桩。", "quote": "由石柱或木桩支撑"}\n' \
        '{"question": "乌镇有多少座桥？", "answer": "七十二座。", "quote": "桥有七十二座"}\n' \
        '{"question": "文中的居民怎样打水？", "answer": "推窗。", "quote": "居民推窗便可打水"}\n{"question": "乌镇的居民在哪里买菜？", "answer": "推窗就能买。"}'
    log, asking = local(tmp_path, lambda _: replies)
    made, refused = pool()
    with log:
        documents(asking, made, read("document"), [("wuzhen#0", passage)], 4)
    assert [r["messages"][0]["content"] for r in made.records] == ["乌镇的水阁怎样支撑？"]
    assert made.records[0]["source"]["document"] == "wuzhen#0" and made.records[0]["source"]["quote"] == "由石柱或木桩支撑"
    assert not _LEANS_ON_TEXT.search("六十岁以上的居民怎样坐车？")
    assert [reason for reason, _ in refused] == ["quote_not_in_document", "leans_on_text", "no_quote"]


def test_steps_are_kept_as_reasoning_and_a_failed_answer_leaves_the_old_one(tmp_path):
    made, refused = pool(("三加四再乘二等于几？", "12"), ("四季各举一种花。", "桃荷菊梅"))
    log, asking = local(tmp_path, lambda text: "【步骤】3+4=7，7×2=14。\n【答案】14" if "三加四" in text else "<think>嗯")
    with log:
        assert work_out(asking, made, read("steps"), 2) == 1
    assert made.records[0]["messages"][1] == {"role": "assistant", "content": "14", "reasoning": "3+4=7，7×2=14。"}
    assert made.records[1]["messages"][1] == {"role": "assistant", "content": "桃荷菊梅"}
    assert made.records[0]["source"]["steps"]["prompt"] == read("steps").sha256
    assert [reason for reason, _ in refused] == ["steps_only_thinking"]


def test_numbered_batches_show_numbered_examples(tmp_path):
    seen = []
    log, asking = local(tmp_path, lambda text: seen.append(text) or "###\n4. 指令：说说磨刀的步骤。\n4. 输入：<无输入>\n4. 输出：先粗磨，再细磨。")
    made, _ = pool()
    with log:
        sent = batches(asking, made, read_seeds(FOLDER / "seeds.jsonl"), read("numbered"), form="numbered", wanted=2, count=20, requests=2, at_once=1)
    assert sent == 2 and len(made.records) == 1 and "请再写 20 个" in seen[0] and "请从第 4 个写到第 23 个" in seen[0]
    assert seen[0].count("\n3. 输出：") == 1 and "5. 指令：" not in seen[0] and "4. 指令：说说磨刀的步骤。" in seen[1]    # an accepted task is an example
    assert made.records[0]["source"]["call_tasks"] == 1 and len(made.records[0]["source"]["examples"]) == 3


# The whole stage against an endpoint on a real socket.

class Endpoint(ThreadingHTTPServer):
    """Answers by the request's own content, so that order plays no part; from `broken` calls on, it refuses the key."""

    def __init__(self, answer, broken=0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.broken, self.prompts, self.lock = answer, broken, [], threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
        with self.server.lock:
            number = len(self.server.prompts)
            self.server.prompts.append(prompt)
        if self.server.broken and number >= self.server.broken:
            return self.send(401, {"error": {"message": "no such key"}})
        message, finish = self.server.answer(prompt, number)
        self.send(200, {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
                        "usage": {"prompt_tokens": 50, "completion_tokens": 60}})

    def send(self, status, payload):
        data = json.dumps(payload).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def craft(prompt, _):
    """Two tasks on crafts that the prompt's own hash chooses; the second is too near to others."""
    generator = random.Random(hashlib.sha256(prompt.encode()).digest())
    texts = [" ".join(generator.sample(CARDS, 6)) + "，哪样最累？", FRAMES[generator.randrange(5)].format(generator.choice(CARDS))]
    rows = [{"instruction": text, "input": "", "output": f"答复{generator.random()}"} for text in texts]
    return {"content": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)}, "stop"


def settings(tmp_path, endpoint, **more):
    pytest.importorskip("openai")
    given = {"teacher": endpoint.url, "teacher_model": "m", "tasks": 12, "batch": 2, "at_once": 3, "out": str(tmp_path / "out")}
    return SelfInstructConfig(**(given | more))


def test_begun_again_it_gives_the_same_bytes_and_asks_nothing_twice(tmp_path):
    with Endpoint(craft) as endpoint:
        whole = self_instruct(settings(tmp_path, endpoint, out=str(tmp_path / "whole")))
        asked = len(endpoint.prompts)
        endpoint.prompts, endpoint.broken = [], 4
        with pytest.raises(TeacherStopped):
            self_instruct(settings(tmp_path, endpoint))
        assert not (tmp_path / "out").exists()
        stopped, endpoint.broken = endpoint.prompts[:4], 0
        del endpoint.prompts[:]
        again = self_instruct(settings(tmp_path, endpoint))
        assert set(stopped).isdisjoint(endpoint.prompts) and len(endpoint.prompts) + 4 == asked
    for name in ("records.jsonl", "dropped.jsonl"):
        left, right = whole.path / name, again.path / name
        assert left.exists() == right.exists() and (not left.exists() or left.read_bytes() == right.read_bytes())
    assert whole.digest == again.digest and whole.manifest["counts"]["kept"] == 12 and whole.manifest["counts"]["dropped"]
    source = json.loads((whole.path / "records.jsonl").read_text("utf-8").split("\n")[0])["source"]
    assert (source["producer"], source["method"], source["teacher"], source["seed"]) == ("self-instruct", "batch", "m", 0)
    assert source["usage"] == {"prompt_tokens": 50, "completion_tokens": 60} and re.fullmatch("[0-9a-f]{64}", source["prompt"])
    assert str(tmp_path) not in (whole.path / "records.jsonl").read_text("utf-8")


def test_a_teacher_that_thinks_aloud(tmp_path):
    thought = "勿入数据甲：想一想。"

    def answer(prompt, number):
        body = json.dumps({"question": QUESTIONS[number], "answer": "答。"}, ensure_ascii=False)
        return [({"content": body}, "stop"), ({"content": f"<think>\n{thought}\n</think>\n\n{body}"}, "stop"),
                ({"content": body, "reasoning_content": thought}, "stop"), ({"content": body, "reasoning": thought}, "stop"),
                ({"content": f"<think>\n{thought}"}, "length"), ({"content": None, "reasoning_content": thought}, "stop")][number % 6]

    with Endpoint(answer) as endpoint:
        made = self_instruct(settings(tmp_path, endpoint, tasks=100, requests=12, at_once=12, limits=Limits(attempts=1, concurrency=1)))
    counts = made.manifest["counts"]
    assert counts == {"in": 12, "kept": 8, "dropped": {"no_reply": 2, "only_thinking": 2}}
    records = [row for _, row in read_jsonl(made.path / "records.jsonl")]
    assert all(m["content"] and not re.search("think>|勿入数据", m["content"]) for r in records for m in r["messages"])


def test_records_are_seeds_by_their_first_turn(tmp_path):
    talk = [("system", "你是医生。"), ("user", "感冒怎么办？"), ("assistant", "多喝水。"), ("user", "还有呢？"), ("assistant", "多休息。")]
    write_jsonl(tmp_path / "records.jsonl", [{"id": "r1", "messages": [{"role": role, "content": text} for role, text in talk]}])
    assert [(name, task.instruction, task.output) for name, task in read_seeds(tmp_path / "records.jsonl")] == [("r1", "感冒怎么办？", "多喝水。")]
    for bad in ([{"from": "human", "value": "x"}], None, ["x"], [{"role": "user", "content": "只有问题"}]):
        write_jsonl(tmp_path / "bad.jsonl", [{"messages": bad}])
        with pytest.raises(DataError, match=r"bad\.jsonl:1: is no seed task"):
            read_seeds(tmp_path / "bad.jsonl")


def test_mistakes_are_named_and_nothing_half_is_left(tmp_path):
    good = {"teacher": "http://127.0.0.1:9/v1", "teacher_model": "m", "out": str(tmp_path / "out")}
    for wrong, message in [({"teacher_model": ""}, "give the model's name there as --teacher_model"), ({"teacher": "http://a:b@host/v1"}, "must hold no key"), ({"teacher": "http://[::1/v1"}, "is no address of an endpoint"),
                           ({"template": "chatml"}, "an endpoint has its own chat template"), ({"temperature": -1.0}, "--temperature at least 0"),
                           ({"tasks": 0}, "needs something to do"), ({"documents": 3}, "given together"), ({"corpus": "./x"}, "given together"), ({"novelty": 1.0}, "not 1.0"), ({"batch": 0}, "at least 1")]:
        with pytest.raises(ConfigError, match=message):
            SelfInstructConfig(**(good | wrong))
    with pytest.raises(ConfigError, match="'rude'.*chatml"):           # a local teacher takes a template, and this is none
        self_instruct(SelfInstructConfig(**(good | {"teacher": "new:llama-tiny", "teacher_model": "", "template": "rude"})))
    (tmp_path / "seeds.jsonl").write_text('{"instruction": "甲", "output": "乙"}\n{"instruction": "只有指令"}\n', "utf-8")
    with pytest.raises(DataError, match=r"seeds\.jsonl:2: is no seed task"):
        self_instruct(SelfInstructConfig(**good, seeds=str(tmp_path / "seeds.jsonl")))
    with Endpoint(lambda *_: ({"content": "我不会。"}, "stop")) as endpoint, pytest.raises(DataError, match="no task was accepted: no_task 2"):
        self_instruct(settings(tmp_path, endpoint, requests=2))
    assert not (tmp_path / "out").exists()


def test_a_dead_endpoint_is_named_and_asked_again_by_another_run(tmp_path, caplog):
    with FakeTeacher(faults=False, quirks=False, always="500", answer=lambda request: craft(request["messages"][0]["content"], 0)[0]["content"]) as server:
        config = settings(tmp_path, server, tasks=2, requests=4, limits=Limits(attempts=1))
        with pytest.raises(DataError, match=r"^no task was accepted: no_reply 4; the last failed call: 500: status 500 for Bearer \*\*\*$"):
            self_instruct(config)
        assert server.calls.total() == 4 and not any("--requests" in record.getMessage() for record in caplog.records)
        server.always = ""
        assert self_instruct(config).manifest["counts"]["kept"] == 2
    with FakeTeacher(faults=False, quirks=False, answer=lambda request: answer(request)) as server:
        def answer(request):
            return "" if server.calls.total() <= 4 else craft(request["messages"][0]["content"], 0)[0]["content"]
        config = settings(tmp_path, server, tasks=2, requests=2, out=str(tmp_path / "blank"), limits=Limits(attempts=2, backoff=0.01))
        with pytest.raises(DataError, match="no_reply 2; the last failed call: empty"):
            self_instruct(config)
        assert server.calls.total() == 4 and self_instruct(config).manifest["counts"]["kept"] == 2
    dead = SelfInstructConfig(teacher="http://127.0.0.1:9/v1", teacher_model="m", tasks=2, requests=2, limits=Limits(attempts=1), out=str(tmp_path / "dead"))
    with pytest.raises(DataError, match="no_reply 2; the last failed call: connection: ConnectError"):
        self_instruct(dead)


def test_an_endpoint_elsewhere_needs_a_key(tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        self_instruct(SelfInstructConfig(teacher="https://teacher.invalid/v1", teacher_model="m", key_variable="NO_SUCH_KEY", out=str(tmp_path / "out")))
