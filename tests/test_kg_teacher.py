"""kg-instruct with a teacher: a faulty endpoint on a real socket, kills, the batch API, estimates, a local model, mistakes."""

import hashlib
import importlib.util
import json
import re
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest
from fake_teacher_server import INPUT, OUTPUT, FakeTeacher

from zhtune import KgInstructConfig, SelfInstructConfig, kg_instruct, self_instruct
from zhtune.cli import main
from zhtune.errors import ConfigError
from zhtune.records import read_jsonl
from zhtune.stages.kg import KgConfig, kg
from zhtune.stages.run import read_recipe
from zhtune.synthesis.teachers.limits import Limits
from zhtune.synthesis.teachers.teacher import TeacherStopped, expected_tokens

CASE = Path(__file__).resolve().parents[2] / "shared" / "cases" / "05-teacher-thinks-aloud"
FEW = {"records_per_fact": 2, "inverse": 0.0, "yes_no": 0.25, "unanswerable": 0.0}
QUICK = Limits(timeout=2.5, backoff=0.01, breaker=50, poll=0)


def facts_of(prompt):
    """(head, label, tails, pairs asked for) of a shipped prompt."""
    rows = re.findall(r"^\d+\. (.+?)　(.+?)　(.+)$", prompt, re.MULTILINE)
    return rows[0][0], rows[0][1], [tail for _, _, tail in rows], int(re.search(r"(\d+) 组", prompt)[1])


def write(request):
    """Pairs as asked; the first draft of a fact invents an item, and those on 头痛 always do."""
    prompt = request["messages"][0]["content"]
    head, label, tails, count = facts_of(prompt)
    again = "有错" in prompt
    rows = []
    for i in range(count):
        said = "、".join([*tails, *["雪莲丸"] * (head == "头痛" or (i == 0 and not again))])
        rows.append({"question": f"{head}的{label}，{'甲乙丙丁'[i]}{'再' * again}问？", "answer": f"{head}的{label}是{said}。"})
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


@pytest.fixture
def prices(tmp_path, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "prices.yaml").write_text(f"m: {{input: {INPUT}, output: {OUTPUT}}}\n", "utf-8")
    return str(tmp_path / "prices.yaml")


def make(toy_graph, server, prices, out, **more):
    given = {"graph": str(toy_graph.path), "teacher": server.url, "teacher_model": "m", "prices": prices, "limits": QUICK, "out": str(out), **FEW}
    return kg_instruct(KgInstructConfig(**(given | more)))


def rows_of(made):
    return [row for _, row in read_jsonl(made.path / "records.jsonl")]


def same(left, right):
    return all((left.path / name).read_bytes() == (right.path / name).read_bytes() for name in ("records.jsonl", "dropped.jsonl", "taught.json"))


def test_a_faulty_endpoint_gives_the_records_of_a_calm_one_and_every_figure_adds_up(toy_graph, tmp_path, prices):
    made = {}
    for name, faults in (("calm", False), ("faulty", True)):
        with FakeTeacher(faults=faults, quirks=False, hang=3.0, answer=write) as server:
            made[name] = make(toy_graph, server, prices, tmp_path / name)
            report = json.loads((made[name].path / "report.json").read_text("utf-8"))
            assert Decimal(report["teacher"]["cost"]) * 10**6 == sum(cost for _, cost, _ in server.answers.values())
            assert (server.calls.total() > 18) == faults and report["teacher"]["answered_jobs"] == 18     # 8 facts, 8 retried, 2 retried twice
    assert same(made["calm"], made["faulty"]) and made["calm"].digest == made["faulty"].digest
    # six facts: one pair at once, one after a retry; the two of 头痛 stay the template's; drafts of 3 rounds refused by name
    metrics, counts = made["calm"].manifest["metrics"], made["calm"].manifest["counts"]
    assert {name: metrics[name] for name in ("accepted", "accepted_after_retry", "fell_back", "facts_retried")} == {
        "accepted": 6, "accepted_after_retry": 6, "fell_back": 4, "facts_retried": 8}
    assert counts == {"in": 20 + 18, "kept": 20, "dropped": {"unknown_item": 18}}         # 16 one-hop records, 4 yes/no
    rows = rows_of(made["calm"])
    assert sum(row["source"]["producer"] == "teacher" for row in rows) == 12 and sum(row["source"]["task"] == "yes_no" for row in rows) == 4
    assert not any("雪莲丸" in message["content"] for row in rows for message in row["messages"])
    for row in rows:
        if row["source"]["producer"] == "teacher":
            assert {"task", "triples", "teacher", "prompt", "job", "seed", "usage", "cost", "call_tasks"} < row["source"].keys()
            assert re.fullmatch("[0-9a-f]{64}", row["source"]["prompt"]) and Decimal(row["source"]["cost"]) > 0 and row["source"]["seed"] == 0
    assert report["coverage"]["用药"] == {"triples": 4, "taught": 4, "covered": 4}


def test_a_teacher_that_never_answers_some_facts_ends_with_the_templates_records(toy_graph, tmp_path, prices):
    def filtered(request):
        return "" if facts_of(request["messages"][0]["content"])[0] == "头痛" else write(request)
    with FakeTeacher(faults=False, quirks=False, answer=filtered) as server:
        made = make(toy_graph, server, prices, tmp_path / "out", limits=Limits(timeout=2.5, backoff=0.01, breaker=3, attempts=4))
        calls = server.calls.total()
        assert calls == 12 + 2 * 3 * 4                      # six facts in two rounds; two of 头痛 in three, each four times
        assert make(toy_graph, server, prices, tmp_path / "out").digest == made.digest and server.calls.total() == calls
    assert {name: made.manifest["metrics"][name] for name in ("accepted", "accepted_after_retry", "fell_back")} == {
        "accepted": 6, "accepted_after_retry": 6, "fell_back": 4}
    assert made.manifest["counts"]["dropped"] == {"no_reply": 6, "unknown_item": 6} and len(rows_of(made)) == 20


def run_and_kill(argv, dead, when):
    """Start the verb, kill it with SIGKILL when `when()` says so."""
    process = subprocess.Popen([sys.executable, "-m", "zhtune", *argv], stderr=subprocess.PIPE, cwd=Path(__file__).parents[1])
    while process.poll() is None and not when():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not dead.exists()


def argv_of(toy_graph, server, prices, out, *more):
    flags = [part for name, value in FEW.items() for part in (f"--{name}", str(value))]
    return ["kg-instruct", "--graph", str(toy_graph.path), "--teacher", server.url, "--teacher-model", "m", "--prices", prices, *flags,
            "--limits.concurrency", "2", "--limits.poll", "0", "--out", str(out), *more]


def test_killed_it_ends_with_the_same_bytes_and_repeats_only_what_was_in_flight(toy_graph, tmp_path, prices):
    with FakeTeacher(faults=False, quirks=False, answer=write) as server:
        calm = make(toy_graph, server, prices, tmp_path / "calm")
    out = tmp_path / "killed"
    with FakeTeacher(faults=False, quirks=False, answer=write, delay=0.03) as server:
        argv = argv_of(toy_graph, server, prices, out)
        run_and_kill(argv, out, lambda: server.calls.total() >= 11)
        assert main(argv) == 0 and 18 <= server.calls.total() <= 18 + 2
    made = make(toy_graph, server, prices, out)              # finished: nothing is asked, the server is gone
    assert same(calm, made) and made.digest == calm.digest


def test_the_batch_api_gives_the_same_records_at_half_the_price_and_survives_a_kill(toy_graph, tmp_path, prices):
    with FakeTeacher(faults=False, quirks=False, answer=write) as server:
        online = make(toy_graph, server, prices, tmp_path / "online")
        batched = make(toy_graph, server, prices, tmp_path / "batched", batch_api=True)
        assert server.calls.total() == 18 and len(server.batches) == 5          # rounds of 8, 8 and 2 jobs; two answers of a large batch get lost
    left, right = rows_of(online), rows_of(batched)
    assert [row["messages"] for row in left] == [row["messages"] for row in right]
    costs = [(Decimal(a["source"]["cost"]), Decimal(b["source"]["cost"])) for a, b in zip(left, right) if a["source"]["producer"] == "teacher"]
    assert len(costs) == 12 and all(a == 2 * b > 0 for a, b in costs)
    out = tmp_path / "killed"
    with FakeTeacher(faults=False, quirks=False, answer=write) as server:
        argv = argv_of(toy_graph, server, prices, out, "--batch-api")
        run_and_kill([*argv, "--limits.poll", "60"], out, lambda: server.batches)
        assert len(server.batches) == 1 and main(argv) == 0 and len(server.batches) == 5
    made = make(toy_graph, server, prices, out, batch_api=True)
    assert same(batched, made)


def test_self_instruct_through_the_batch_api(tmp_path, prices):
    def answer(request):
        name = hashlib.sha256(request["messages"][0]["content"].encode()).hexdigest()
        return json.dumps({"instruction": f"说说{name}这个词怎么读。", "output": f"读作{name}。"}, ensure_ascii=False)
    with FakeTeacher(faults=False, quirks=False, answer=answer) as server:
        made = self_instruct(SelfInstructConfig(teacher=server.url, teacher_model="m", tasks=1, batch=1, requests=2, at_once=2, prices=prices,
                                                batch_api=True, limits=QUICK, out=str(tmp_path / "out")))
        assert not server.calls and len(server.batches) == 1 and made.manifest["counts"]["kept"] == 1


def test_an_estimate_is_exact_where_it_can_be_and_sends_nothing(toy_graph, tmp_path, prices, capsys):
    out = tmp_path / "out"
    with FakeTeacher(faults=False, quirks=False, answer=write) as server:
        argv = argv_of(toy_graph, server, prices, out)
        assert main([*argv, "--dry-run"]) == 0
        assert not server.calls and not list(tmp_path.glob("*out*"))
        told = capsys.readouterr().out
        assert "calls   8, besides 0 that the log answers; facts with rejected drafts are asked again, at most 2 times" in told
        assert main(argv) == 0
        requests = [json.loads(line) for line in (out / "logs" / "teacher.jsonl").read_text("utf-8").splitlines()][:8]
    text = (Path(__file__).parents[1] / "prompts" / "kg_instruct" / "rewrite.txt").read_text("utf-8").strip()
    graph = {("感冒", "药"): ["甲药", "乙药"], ("感冒", "宜吃"): ["白粥"], ("感冒", "忌吃"): ["辣椒"], ("咳嗽", "药"): ["丙药"], ("咳嗽", "宜吃"): ["雪梨"],
             ("咳嗽", "忌吃"): ["辣椒"], ("头痛", "药"): ["丁药"], ("头痛", "宜吃"): ["绿茶"]}
    prompts = []
    for (head, label), tails in graph.items():
        facts = "\n".join(f"{i}. {head}　{label}　{tail}" for i, tail in enumerate(tails, 1))
        prompts.append(text.replace("{{head}}", head).replace("{{relation}}", label).replace("{{facts}}", facts).replace("{{count}}", "2"))
    tokens = sum(expected_tokens([{"content": prompt}]) for prompt in prompts)
    most = sum(32 + len(prompt.encode()) for prompt in prompts)
    replies = int(re.search(r"prompts and ([\d,]+) of replies", told)[1].replace(",", ""))
    assert f"about {tokens:,} of prompts" in told and f"at most {most + 8 * 3072:,} in all" in told and 200 < replies < 600
    cost, upper = (tokens * INPUT + replies * OUTPUT) / 1e6, (most * INPUT + 8 * 3072 * OUTPUT) / 1e6
    assert f"cost    about {cost:.4f}, at most {upper:.4f}" in told
    assert sum(request["event"] == "sent" for request in requests) >= 1 and Decimal(requests[0]["cost"]) * 8 < Decimal("1.2") * Decimal(upper)


def test_an_estimate_of_an_interrupted_run_leaves_out_what_is_paid(toy_graph, tmp_path, prices, monkeypatch):
    with FakeTeacher(faults=False, quirks=False, answer=write) as server:
        with pytest.raises(TeacherStopped, match="--limits.max_tokens 5000 allows no further call"):
            make(toy_graph, server, prices, tmp_path / "out", limits=Limits(max_tokens=5000))
        calls = server.calls.total()
        told = make(toy_graph, server, prices, tmp_path / "out", dry_run=True)
        assert 0 < calls < 8 and f"calls   {8 - calls}, besides {calls} that the log answers" in told and server.calls.total() == calls
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)         # an estimate needs no key
    told = self_instruct(SelfInstructConfig(teacher="https://teacher.invalid/v1", teacher_model="m", key_variable="NO_SUCH_KEY", tasks=25, batch=10,
                                            evolve=300, steps=4, dry_run=True, out=str(tmp_path / "other")))
    assert "calls   307, besides 0" in told and "if every task is accepted; at most 12 for batches" in told and "give --prices" in told
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(not CASE.exists(), reason="the shared cases are not here")
def test_thoughts_of_the_teacher_stay_out(tmp_path, prices):
    """Styles 1 to 3 carry thoughts, 4 and 5 nothing else; each reply holds a draft for every fact."""
    spec = importlib.util.spec_from_file_location("case_05", CASE / "teacher.py")
    teacher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(teacher)
    drafts = {("青石热", "症状"): "青石热的症状包括发热和皮疹。", ("青石热", "常用药物"): "青石热的常用药物是清平胶囊。", ("白云咳", "症状"): "白云咳的症状是夜间咳嗽。",
              ("白云咳", "常用药物"): "白云咳的常用药物是百合糖浆。", ("白云咳", "忌吃"): "白云咳病人忌吃辣椒。"}
    teacher.Teacher.bodies = ["\n".join(json.dumps({"question": f"回{number}：{h}的{r}呢？", "answer": said}, ensure_ascii=False)
                                        for (h, r), said in drafts.items()) for number in range(60)]
    teacher.Teacher.log = str(tmp_path / "requests.jsonl")
    server = teacher.ThreadingHTTPServer(("127.0.0.1", 0), teacher.Teacher)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    graph = kg(KgConfig(input=str(CASE / "triples.csv"), out=str(tmp_path / "graph")))
    made = kg_instruct(KgInstructConfig(graph=str(graph.path), teacher=f"http://127.0.0.1:{server.server_address[1]}/v1", teacher_model="m", records_per_fact=4,
                                        limits=Limits(attempts=1, concurrency=1), out=str(tmp_path / "out")))
    server.shutdown()
    server.server_close()
    styles = [json.loads(line)["style"] for line in (tmp_path / "requests.jsonl").read_text("utf-8").splitlines()]
    by_teacher = [row for row in rows_of(made) if row["source"]["producer"] == "teacher"]
    assert len(styles) >= 12 and {int(re.match(r"回(\d+)", row["messages"][0]["content"])[1]) % 6 for row in by_teacher} == {0, 1, 2, 3}
    assert all(m["content"] and not re.search("think>|勿入数据", m["content"]) for row in rows_of(made) for m in row["messages"])
    dropped = made.manifest["counts"]["dropped"]
    assert (dropped["only_thinking"], dropped["no_reply"]) == (styles.count(4), styles.count(5))


def test_codes_stay_text_in_a_teachers_answers(tmp_path, prices):
    (tmp_path / "codes.csv").write_text("head,relation,tail\n清平胶囊,医保编码,00123450\n安络片,医保编码,00071330\n", "utf-8")
    graph = kg(KgConfig(input=str(tmp_path / "codes.csv"), out=str(tmp_path / "graph")))

    def answer(request):
        head, label, tails, _ = facts_of(request["messages"][0]["content"])
        code = tails[0] if head == "清平胶囊" else tails[0].lstrip("0")
        return json.dumps({"question": f"查一下{head}的{label}", "answer": f"{head}的{label}是{code}。"}, ensure_ascii=False)
    with FakeTeacher(faults=False, quirks=False, answer=answer) as server:
        made = make(graph, server, prices, tmp_path / "out", records_per_fact=1, yes_no=0.0)
    assert {(row["source"]["producer"], row["messages"][1]["content"]) for row in rows_of(made)} == {
        ("teacher", "清平胶囊的医保编码是00123450。"), ("template", "安络片的医保编码是00071330。")}
    assert made.manifest["counts"]["dropped"] == {"missing": 3}


def test_a_local_model_can_be_the_teacher_and_the_users_own_prompts_its_orders(toy_graph, tmp_path):
    pytest.importorskip("torch")
    folder = tmp_path / "prompts"
    folder.mkdir()
    for name, placeholders in (("rewrite", "head relation facts count"), ("retry", "head relation facts count drafts")):
        (folder / f"{name}.txt").write_text("".join(f"{{{{{p}}}}}" for p in placeholders.split()), "utf-8")
    given = {"graph": str(toy_graph.path), **FEW}
    plain = kg_instruct(KgInstructConfig(**given, out=str(tmp_path / "plain")))
    made = kg_instruct(KgInstructConfig(**given, teacher="new:llama-tiny", prompts=str(folder), retries=0, max_tokens=8, out=str(tmp_path / "local")))
    assert (made.path / "records.jsonl").read_bytes() == (plain.path / "records.jsonl").read_bytes()     # a random model writes nothing true
    assert made.manifest["metrics"]["fell_back"] == 16
    log = [json.loads(line) for line in (made.path / "logs" / "teacher.jsonl").read_text("utf-8").splitlines()]
    assert len(log) == 8 and all(line["event"] == "answered" and line["usage"]["completion_tokens"] <= 8 for line in log)


@pytest.mark.parametrize(("wrong", "message"), [
    ({"teacher_model": ""}, "give the model's name there as --teacher_model"), ({"teacher": "https://a:b@host/v1"}, "must hold no key"),
    ({"teacher": "", "dry_run": True}, "go with --teacher, which is not given"), ({"teacher": "embedded", "batch_api": True}, "--batch_api is for an endpoint"),
    ({"retries": -1}, "--retries must be at least 0, found -1"), ({"limits": {"max_cost": 1.0}}, "max_cost needs a price"),
    ({"prompts": "prompts"}, r"rewrite\.txt must have the placeholders \{\{head\}\}, \{\{relation\}\}, \{\{facts\}\}, \{\{count\}\} and no other")])
def test_mistakes_are_named_and_nothing_is_left(toy_graph, tmp_path, wrong, message):
    pytest.importorskip("openai")
    if "prompts" in wrong:
        (tmp_path / "prompts").mkdir()
        for name in ("rewrite", "retry"):
            (tmp_path / "prompts" / f"{name}.txt").write_text("{{head}}", "utf-8")
        wrong = {"prompts": str(tmp_path / "prompts")}
    if "limits" in wrong:
        wrong = {"limits": Limits(**wrong["limits"])}
    given = {"graph": str(toy_graph.path), "teacher": "http://127.0.0.1:9/v1", "teacher_model": "m", "out": str(tmp_path / "out")}
    with pytest.raises(ConfigError, match=message):
        kg_instruct(KgInstructConfig(**(given | wrong)))
    assert not (tmp_path / "out").exists()


def test_a_recipe_has_no_dry_run():
    with pytest.raises(ConfigError, match="kg-instruct: dry_run makes no artifact"):
        read_recipe({"kg-instruct": {"graph": "./g", "teacher": "new:llama-tiny", "dry_run": True}}, Path("out"), "r.yaml")
