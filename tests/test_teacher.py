"""The job engine: exact prices and waits, a log that survives kills, a faulty server on a real socket, caps, batches."""

import asyncio
import hashlib
import importlib.util
import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_teacher_server import INPUT, OUTPUT, FakeTeacher

from zhtune.errors import ArtifactError, ConfigError, DataError
from zhtune.synthesis.teachers.asking import TeacherConfig, forecast
from zhtune.synthesis.teachers.joblog import Fault, JobLog, Received
from zhtune.synthesis.teachers.limits import Gate, Limits, TokenBucket, backoff
from zhtune.synthesis.teachers.prices import FREE, price, read_price
from zhtune.synthesis.teachers.teacher import Job, LocalTeacher, Rehearsal, TeacherStopped, expected_tokens, job_id, most_tokens

KEY = "sk-a-secret-of-the-test"
QUICK = Limits(concurrency=8, attempts=6, timeout=0.5, backoff=0.01, breaker=50, poll=0)


def job(number, **changes):
    return replace(Job([{"role": "user", "content": f"第{number}问"}], 64, 0.0, 0, f"k{number}"), **changes)


@pytest.fixture
def openai(monkeypatch):
    """The two endpoints' classes and a function for the endpoint of a server."""
    pytest.importorskip("openai")
    from zhtune.synthesis.teachers.batch import OpenAIBatchTeacher
    from zhtune.synthesis.teachers.openai_teacher import Endpoint, OpenAITeacher
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def endpoint(server):
        return Endpoint(model="m", base_url=server.url, api_key_env="TEST_KEY")
    return SimpleNamespace(Teacher=OpenAITeacher, Batch=OpenAIBatchTeacher, Endpoint=Endpoint, endpoint=endpoint)


def test_costs_are_exact_decimals(tmp_path):
    (tmp_path / "prices.yaml").write_text("m: {input: 0.1, output: 0.7, cached: 0.01}\nbad: {input: -1, output: 1}\nodd: {in: 1}\n")
    found = read_price(tmp_path / "prices.yaml", "m")
    assert found.cost({"prompt_tokens": 3, "completion_tokens": 2}) == Decimal("0.0000017")
    assert found.cost({"prompt_tokens": 3, "completion_tokens": 2, "cached_tokens": 1}) == Decimal("0.00000161")
    assert found.batched().cost({"prompt_tokens": 3, "completion_tokens": 2}) == Decimal("0.00000085")
    for model, message in (("bad", "0 or more, found -1"), ("odd", "must be a mapping of input, output"), ("none", "has no price for 'none'")):
        with pytest.raises(ConfigError, match=message):
            read_price(tmp_path / "prices.yaml", model)


def test_no_window_of_a_minute_sees_more_than_the_limit():
    now, taken = [0.0], []
    bucket = TokenBucket(100, lambda: now[0])               # holds 10, refilled by 90 a minute
    while now[0] < 200:
        if wait := bucket.delay(3):
            now[0] += wait
            continue
        bucket.take(3)
        taken.append(now[0])
    assert taken[:4] == [0.0, 0.0, 0.0, pytest.approx(2 / 1.5)]
    assert max(3 * sum(start <= t < start + 60 for t in taken) for start in taken) in (99, 100)


def test_a_call_larger_than_the_bucket_leaves_a_debt_and_a_pause_holds_everybody():
    now, order = [0.0], []

    async def sleep(seconds):
        now[0] += seconds

    async def enter(gate, name, tokens):
        await gate.enter(tokens)
        order.append((name, round(now[0], 6)))

    async def calls():
        gate = Gate(Limits(tokens_per_minute=600), sleep, lambda: now[0])      # holds 60, 9 a second
        await asyncio.gather(enter(gate, "large", 150), enter(gate, "small", 6))
        gate.pause(30)
        await enter(gate, "later", 0)
    asyncio.run(calls())
    assert order == [("large", 0), ("small", round(96 / 9, 6)), ("later", round(96 / 9 + 30, 6))]


def test_backoff_doubles_is_jittered_and_is_the_same_after_a_restart():
    waits = [backoff("job", n, 1.0) for n in range(1, 9)]
    assert all(0.5 * min(60, 2 ** n) <= wait <= min(60, 2 ** n) for n, wait in enumerate(waits))
    assert waits == [backoff("job", n, 1.0) for n in range(1, 9)] and backoff("other", 1, 1.0) != waits[0]
    with pytest.raises(ConfigError, match="--limits.attempts must be at least 1, found 0"):
        Limits(attempts=0)


def test_job_ids_depend_on_all_of_the_job_and_on_nothing_else():
    one = job(1)
    text = '["m",[{"content":"第1问","role":"user"}],64,0.0,0,"k1"]'
    assert job_id("m", one) == hashlib.sha256(text.encode()).hexdigest()
    turned = replace(one, messages=[{"content": "第1问", "role": "user"}], temperature=0)
    assert job_id("m", turned) == job_id("m", one)
    others = [replace(one, seed=1), replace(one, key="x"), replace(one, max_tokens=65), replace(one, temperature=0.1), job(2)]
    assert len({job_id("m", one), job_id("n", one), *(job_id("m", other) for other in others)}) == 7


def test_the_log_ignores_a_torn_last_line_and_refuses_a_damaged_one(tmp_path):
    path = tmp_path / "teacher.jsonl"
    with JobLog(path) as log:
        assert log.sent([("a", 10, Decimal("0.1")), ("b", 20, Decimal("0.2"))]) == [1, 1]
        log.answer([("a", 1, Received("好", "stop", {"prompt_tokens": 2, "completion_tokens": 3}))], price(10_000, 10_000))
        with pytest.raises(ArtifactError, match="in use by another process"):
            JobLog(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event":"answered","job":"b","att')
    with JobLog(path) as log:
        assert log.state("a").answer.text == "好" and log.state("b").answer is None
        assert log.reach == (25, Decimal("0.25"))           # 5 spent, and 20 of a call whose end nobody knows
        assert log.summary() == {"answered_jobs": 1, "calls": {"answered": 1}, "prompt_tokens": 2, "completion_tokens": 3, "cost": "0.05",
                                 "held_calls": 1, "held_tokens": 20, "held_cost": "0.2"}
        assert log.sent([("b", 20, Decimal("0.2"))]) == [2]
    lines = path.read_bytes().splitlines(keepends=True)
    assert b"".join(lines[:3]) == whole and len(lines) == 4
    path.write_bytes(lines[0] + b'{"event":"sent","job":"b"}\n' + lines[2])
    with pytest.raises(DataError, match=r"teacher.jsonl:2: not a line of a teacher's log"):
        JobLog(path)
    path.write_bytes(lines[0] + lines[1][:9] + b"\n" + lines[2])
    with pytest.raises(DataError, match=r"teacher.jsonl:2: not valid JSON"):
        JobLog(path)


def test_a_local_teacher_repeats_whole_batches_after_a_kill(tmp_path):
    batches = []

    def generate(conversations, max_tokens, temperature, seed):
        texts = [messages[-1]["content"] for messages in conversations]
        batches.append(texts)
        return [SimpleNamespace(text=f"{text} of {len(texts)}", prompt_tokens=2, completion_tokens=3, finish="stop") for text in texts]

    jobs = [job(0), job(1), job(0), job(2), job(3, temperature=0.7, seed=5), job(4, temperature=0.7, seed=5)]
    with JobLog(tmp_path / "log") as log:
        outcomes = LocalTeacher("local", generate, log, batch=2).ask(jobs)
    assert batches == [["第0问", "第1问"], ["第2问"], ["第3问", "第4问"]]
    assert [o.text for o in outcomes] == ["第0问 of 2", "第1问 of 2", "第0问 of 2", "第2问 of 1", "第3问 of 2", "第4问 of 2"]
    assert outcomes[0].usage == {"prompt_tokens": 2, "completion_tokens": 3} and outcomes[0].cost == 0 and outcomes[0].error == ""
    lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    (tmp_path / "log").write_bytes(b"".join(lines[:4]) + lines[4][:-2])        # killed while the last batch was written
    batches.clear()
    with JobLog(tmp_path / "log") as log:
        assert LocalTeacher("local", generate, log, batch=2).ask(jobs) == outcomes
    assert batches == [["第3问", "第4问"]]


def test_the_estimate_counts_what_is_not_in_the_log(tmp_path):
    messages = [{"role": "user", "content": "感冒 is 5x"}]                       # 2 wide and 6 ASCII characters, 12 bytes
    assert (expected_tokens(messages), most_tokens(messages)) == (4 + 2 + 2, 16 + 16 + 12)
    rehearsal, partial = Rehearsal("m"), tmp_path / "out.partial" / "logs"
    assert {outcome.error for outcome in rehearsal.ask([job(1, messages=messages), job(2), job(2)])} == {"not sent"}
    partial.mkdir(parents=True)
    with JobLog(partial / "teacher.jsonl") as log:
        log.answer([(job_id("m", job(2)), 1, Received("好", "stop", {"prompt_tokens": 1, "completion_tokens": 1}))], FREE)
    (tmp_path / "prices.yaml").write_text("m: {input: 10, output: 100}\n")
    sources = {"prices": SimpleNamespace(path=tmp_path / "prices.yaml")}
    assert forecast(rehearsal, 20, sources, TeacherConfig(teacher_model="m", out=str(tmp_path / "out")), "a note").splitlines() == [
        "m: nothing was sent, nothing is written", "calls   1, besides 1 that the log answers; a note",
        "tokens  about 8 of prompts and 10 of replies, at most 108 in all", "cost    about 0.0011, at most 0.0068"]


def test_a_faulty_server_gives_the_outcomes_of_a_faultless_one(tmp_path, openai):
    jobs, told = [job(i) for i in range(60)] + [job(3)], []
    for name, faults in (("calm", False), ("faulty", True)):
        with FakeTeacher(faults=faults, hang=2.5) as server, JobLog(tmp_path / name) as log:
            teacher = openai.Teacher(openai.endpoint(server), log, replace(QUICK, timeout=2), price(INPUT, OUTPUT))
            outcomes = teacher.ask(jobs)
            calls = server.calls.total()
            assert teacher.ask(jobs) == outcomes and server.calls.total() == calls
            told.append(outcomes)
            seen = sum(cost for _, cost, _ in server.answers.values())
            assert log.ledger.cost * 10**6 == seen and seen <= server.bill <= log.reach[1] * 10**6
            assert calls == sum(log.ledger.statuses.values()) and (calls > 60) == faults
            assert server.keys == {f"Bearer {KEY}"}
        written = (tmp_path / name).read_text("utf-8")
        assert KEY not in written and server.url not in written and "127.0.0.1" not in written
    assert told[0] == told[1] and told[0][3] == told[0][60]
    assert {o.error for o in told[0]} == {"", "400: this content is not allowed"}
    assert {"429", "500", "timeout", "unreadable", "connection", "no choice", "400"} <= set(log.ledger.statuses)
    assert log.ledger.statuses["answered"] == log.ledger.answered_jobs == sum(not o.error for o in told[0][:60])


def test_the_breaker_stops_says_what_is_there_and_forgives_the_jobs(tmp_path, openai):
    with FakeTeacher(faults=False, quirks=False) as server, JobLog(tmp_path / "log") as log:
        teacher = openai.Teacher(openai.endpoint(server), log, replace(QUICK, concurrency=2, breaker=9, attempts=6), price(1, 1))
        teacher.ask([job(0), job(1)])
        server.always = "500"
        with pytest.raises(TeacherStopped, match=r"9 calls in a row failed, the last with 500: status 500 .*; 2 of 8 jobs are answered in .*log"):
            teacher.ask([job(i) for i in range(8)])
        assert 2 + 9 <= server.calls.total() <= 2 + 10      # one more may have been in flight
        server.always = ""
        assert [o.error for o in teacher.ask([job(i) for i in range(8)])] == [""] * 8


def test_a_job_is_given_up_after_its_attempts_but_a_429_is_not_its_fault(tmp_path, openai):
    limits = replace(QUICK, concurrency=1, attempts=3)
    with FakeTeacher(faults=False, quirks=False, always="500") as server, JobLog(tmp_path / "log") as log:
        teacher = openai.Teacher(openai.endpoint(server), log, limits)
        (outcome,) = teacher.ask([job(0)])
        assert (outcome.text, outcome.error) == ("", "500: status 500 for Bearer ***") and server.calls.total() == 3
        assert teacher.ask([job(0)]) == [outcome] and server.calls.total() == 3
        server.always = "429"
        with pytest.raises(TeacherStopped, match="6 calls in a row failed, the last with 429"):
            openai.Teacher(openai.endpoint(server), log, replace(limits, breaker=6)).ask([job(1)])
        assert log.state(job_id("m", job(1))).failures == 0


def test_blank_answers_use_up_a_jobs_attempts_for_good_and_never_stop_the_run(tmp_path, openai):
    jobs, limits = [job(i) for i in range(20)], replace(QUICK, concurrency=2, breaker=3, attempts=4)

    def answer(request):
        return "" if request["messages"][0]["content"] in ("第7问", "第8问", "第9问") else "好"
    with FakeTeacher(faults=False, quirks=False, answer=answer) as server:
        endpoint = openai.endpoint(server)
        with JobLog(tmp_path / "log") as log:
            outcomes = openai.Teacher(endpoint, log, limits).ask(jobs)
        assert [o.error for o in outcomes] == [""] * 7 + ["empty: the answer has no text (finish stop)"] * 3 + [""] * 10
        assert server.calls.total() == 17 + 3 * 4
        with JobLog(tmp_path / "log") as log:               # begun again
            assert openai.Teacher(endpoint, log, limits).ask(jobs) == outcomes and server.calls.total() == 29
        with JobLog(tmp_path / "other") as log:             # a stop gives back what the endpoint cost a job, not its blank answers
            blank, teacher = job(7), openai.Teacher(endpoint, log, replace(limits, attempts=2, concurrency=1))
            assert teacher.ask([blank])[0].error and server.calls.total() == 31
            log.stopped("nothing was answered")             # but where all were blank, the model was set wrongly
            assert log.state(job_id("m", blank)).failures == 0 and teacher.ask([job(1), blank])[1].error and server.calls.total() == 34
            server.always = "500"
            with pytest.raises(TeacherStopped, match="3 calls in a row failed, the last with 500"):
                openai.Teacher(endpoint, log, replace(limits, attempts=6, concurrency=1)).ask([blank])
            server.always, state = "", log.state(job_id("m", blank))
            assert (state.failures, state.blanks, server.calls.total()) == (2, 2, 37)
            assert openai.Teacher(endpoint, log, replace(limits, attempts=3)).ask([blank])[0].error and server.calls.total() == 38
    with JobLog(tmp_path / "other") as log:
        assert (state.failures, state.blanks) == (3, 3) == (log.state(job_id("m", blank)).failures, log.state(job_id("m", blank)).blanks)


def test_a_refused_key_stops_at_once_and_is_not_repeated(tmp_path, openai):
    with FakeTeacher(always="401") as server, JobLog(tmp_path / "log") as log:
        with pytest.raises(TeacherStopped, match=r"m refuses every call \(401: status 401 for Bearer \*\*\*\)") as error:
            openai.Teacher(openai.endpoint(server), log, replace(QUICK, concurrency=1)).ask([job(i) for i in range(20)])
        assert server.calls.total() <= 3 and KEY not in str(error.value) and KEY not in (tmp_path / "log").read_text("utf-8")


def test_caps_are_checked_before_sending(tmp_path, openai):
    jobs = [job(i) for i in range(40)]
    for name, cap in (("cost", {"max_cost": 0.002}), ("tokens", {"max_tokens": 300})):
        with FakeTeacher(faults=False, quirks=False) as server, JobLog(tmp_path / name) as log:
            teacher = openai.Teacher(openai.endpoint(server), log, replace(QUICK, **cap), price(INPUT, OUTPUT))
            with pytest.raises(TeacherStopped, match=rf"--limits.max_{name} \S+ allows no further call"):
                teacher.ask(jobs)
            calls = server.calls.total()
            assert 5 < calls < 40
            assert server.bill <= 2000 if name == "cost" else log.reach[0] <= 300
            with pytest.raises(TeacherStopped, match=f"{calls} of 40 jobs are answered"):
                teacher.ask(jobs)
            assert server.calls.total() == calls
            raised = openai.Teacher(openai.endpoint(server), log, QUICK, price(INPUT, OUTPUT)).ask(jobs)
            assert not any(o.error for o in raised) and server.calls.total() == 40


def test_what_is_missing_is_said_before_anything_is_sent(tmp_path, openai):
    with JobLog(tmp_path / "log") as log:
        with pytest.raises(ConfigError, match="variable NO_SUCH_KEY is not set; export the teacher's api_key in it"):
            openai.Teacher(openai.Endpoint(model="m", base_url="https://teacher.invalid/v1", api_key_env="NO_SUCH_KEY"), log)
        endpoint = openai.Endpoint(model="m", base_url="http://127.0.0.1:9/v1", api_key_env="TEST_KEY")
        with pytest.raises(ConfigError, match="max_cost needs a price"):
            openai.Teacher(endpoint, log, Limits(max_cost=1))
        teacher = openai.Teacher(endpoint, log, replace(QUICK, breaker=2), price(1, 1))
        assert teacher.name == "m"
        with pytest.raises(TeacherStopped, match="2 calls in a row failed, the last with connection: ConnectError"):
            asyncio.run(asked_in_a_loop(teacher))
        assert log.reach == (0, Decimal(0))                 # nothing reached a server, nothing is held


async def asked_in_a_loop(teacher):
    """As in a notebook."""
    return teacher.ask([job(1)])


@pytest.mark.parametrize("content, status, usage", [
    (b'{"choices": [{"mess', "unreadable", {}), (b"[]", "no completion", {}), (b"<html>", "no completion", {}), (b'{"error": {}}', "no completion", {}), (b"", "unreadable", {}),
    (b'{"choices": null}', "no choice", {}),
    (b'{"choices": [{"message": {"content": " "}}], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}', "empty",
     {"prompt_tokens": 1, "completion_tokens": 0}),
    (b'{"choices": [{"message": null}], "usage": {"prompt_tokens": true, "completion_tokens": 0}}', "no choice", {})])
def test_bodies_without_an_answer(content, status, usage):
    from zhtune.synthesis.teachers.openai_teacher import read_completion
    with pytest.raises(Fault) as error:
        read_completion(content)
    assert (error.value.status, error.value.usage, error.value.billed) == (status, usage, True)


def test_batches_cost_half_and_are_merged_once(tmp_path, openai):
    jobs = [job(i) for i in range(6)]
    with FakeTeacher(faults=False, quirks=False) as server, JobLog(tmp_path / "log") as log:
        outcomes = openai.Batch(openai.endpoint(server), log, QUICK, price(INPUT, OUTPUT)).ask(jobs)
        assert not any(o.error for o in outcomes) and len(server.batches) == 2         # two answers got lost in the first
        seen = [cost for _, cost, _ in server.answers.values()]
        assert log.ledger.statuses == {"answered": 6, "missing": 2} and len(seen) == 7
        assert sum(o.cost for o in outcomes) * 2 * 10**6 == sum(seen[:4] + seen[5:])    # the cut line is held, not spent
        first = json.loads((tmp_path / "log").read_text("utf-8").splitlines()[6])
        assert first["event"] == "batch" and first["id"] == "batch-0"
        online = openai.Teacher(openai.endpoint(server), log, QUICK, price(INPUT, OUTPUT))
        assert online.ask(jobs) == outcomes and not server.calls
    assert sorted(p.name[:10] for p in tmp_path.glob("log.batch-*")) == ["log.batch-"] * 2


def test_a_batch_survives_a_kill_before_and_after_its_creation(tmp_path, openai):
    class Killed(BaseException):
        pass

    def kill(_):
        raise Killed
    jobs, path = [job(0), job(1)], tmp_path / "log"
    with FakeTeacher(faults=False, quirks=False) as server:
        endpoint = openai.endpoint(server)
        with JobLog(path) as log, pytest.raises(Killed):
            openai.Batch(endpoint, log, QUICK, price(INPUT, OUTPUT), sleep=kill).ask(jobs)
        lines = path.read_bytes().splitlines(keepends=True)
        assert [json.loads(line)["event"] for line in lines] == ["sent", "sent", "batch"]
        for kept, batches in ((3, 1), (2, 1)):              # its id is known; only its digest is known
            path.write_bytes(b"".join(lines[:kept]))
            with JobLog(path) as log:
                outcomes = openai.Batch(endpoint, log, QUICK, price(INPUT, OUTPUT)).ask(jobs)
            assert not any(o.error for o in outcomes) and len(server.batches) == batches
        server.batches.clear()
        path.write_bytes(b"".join(lines[:1]))               # killed before it was created: it is given up and made anew
        with JobLog(path) as log:
            again = openai.Batch(endpoint, log, QUICK, price(INPUT, OUTPUT)).ask(jobs)
            assert [o.text for o in again] == [o.text for o in outcomes] and len(server.batches) == 1
            assert log.ledger.statuses == {"answered": 2, "unsent": 1} and log.ledger.held_tokens == 0


def test_a_batch_whose_answers_are_all_in_the_log_is_no_silent_one(tmp_path, openai):
    """Killed after the last answer was noted and before the batch counted as merged."""
    path, jobs = tmp_path / "log", [job(0), job(1)]
    with FakeTeacher(faults=False, quirks=False) as server:
        with JobLog(path) as log:
            outcomes = openai.Batch(openai.endpoint(server), log, QUICK).ask(jobs)
        lines = path.read_bytes().splitlines(keepends=True)
        assert [json.loads(line)["event"] for line in lines] == ["sent", "sent", "batch", "answered", "answered", "batch"]
        path.write_bytes(b"".join(lines[:-1]))
        with JobLog(path) as log:
            assert openai.Batch(openai.endpoint(server), log, QUICK).ask(jobs) == outcomes and len(server.batches) == 1


@pytest.mark.parametrize(("url", "key", "words"), [
    ("http://127.0.0.1:9/v1", "你的密钥", "TEST_KEY holds no key: keys are of ASCII characters"),
    ("http://127.0.0.1:80O0/v1", "k", "'http://127.0.0.1:80O0/v1' is no address of an endpoint"), ("127.0.0.1:9", "k", "is no address of an endpoint"),
    ("http://[::1/v1", "k", "is no address of an endpoint"), ("", "k", "'' is no address of an endpoint")])
def test_a_key_or_address_that_cannot_be_one_is_refused_in_words(tmp_path, openai, monkeypatch, url, key, words):
    monkeypatch.setenv("TEST_KEY", key)
    with JobLog(tmp_path / "log") as log, pytest.raises(ConfigError, match=words):
        openai.Teacher(openai.Endpoint(model="m", base_url=url, api_key_env="TEST_KEY"), log)


def test_a_model_that_takes_only_max_completion_tokens_says_so_once(tmp_path, openai):
    jobs = [job(i) for i in range(12)]
    with FakeTeacher(faults=False, quirks=False, renamed=True) as server, JobLog(tmp_path / "log") as log:
        teacher = openai.Teacher(openai.endpoint(server), log, replace(QUICK, concurrency=1), price(INPUT, OUTPUT))
        assert not any(o.error for o in teacher.ask(jobs)) and (server.renamings, server.calls.total()) == (1, 12)
        assert log.ledger.statuses == {"answered": 12} and log.ledger.cost * 10**6 == server.bill
    with FakeTeacher(faults=False, quirks=False, renamed=True) as server:
        with JobLog(tmp_path / "batched") as log:           # a whole batch is refused before the first answer tells
            batched = openai.Batch(openai.endpoint(server), log, QUICK).ask(jobs[:2])
            assert not any(o.error for o in batched) and (server.renamings, len(server.batches)) == (2, 2)
        with JobLog(tmp_path / "batched") as log:           # and the log remembers
            assert not openai.Batch(openai.endpoint(server), log, QUICK).ask(jobs[2:4])[0].error and server.renamings == 2
    with FakeTeacher(faults=False, quirks=True) as server, JobLog(tmp_path / "other") as log:
        errors = {o.error for o in openai.Teacher(openai.endpoint(server), log, QUICK).ask([job(i) for i in range(60)])}
        assert errors == {"", "400: this content is not allowed"}              # another 400 is the job's own


def test_a_batch_in_which_every_job_is_refused_ends_the_jobs_not_the_run(tmp_path, openai):
    with FakeTeacher(faults=False, quirks=False, answer=lambda _: " ") as server, JobLog(tmp_path / "log") as log:
        outcomes = openai.Batch(openai.endpoint(server), log, replace(QUICK, attempts=2)).ask([job(0), job(1)])
        assert [o.error for o in outcomes] == ["empty: the answer has no text (finish stop)"] * 2 and len(server.batches) == 2


def test_killed_workers_end_with_the_outcomes_of_a_calm_run(tmp_path, openai):
    spec = importlib.util.spec_from_file_location("bench_teacher", Path(__file__).parents[1] / "scripts" / "bench" / "teacher.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    for name, faults, kills in (("calm", False, 0), ("disturbed", True, 3)):
        (tmp_path / name).mkdir()
        with FakeTeacher(faults=faults, hang=1.5) as server:
            hits, errors = bench.run(tmp_path / name, server, 60, kills, seed=1)
            assert not errors and hits == kills
            bench.check(tmp_path / "calm", tmp_path / name, bench.books(tmp_path / name, server))
