"""Kill a worker that asks a faulty teacher, start it again until it is done, and compare outcomes, calls and costs.

Usage: python scripts/bench/teacher.py [JOBS] [KILLS] [SEED]. The server (tests/fake_teacher_server.py) runs in a thread of this
process on a loopback socket and keeps its own books; each worker is a process that gets SIGKILL after a seeded number of calls.
A second part sets a cap below the whole bill.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from fake_teacher_server import INPUT, OUTPUT, FakeTeacher

TIMEOUT = 1.0


def jobs_of(count: int) -> list:
    """`count` different jobs, and the first tenth of them once more."""
    from zhtune.synthesis.teachers.teacher import Job
    jobs = [Job([{"role": "system", "content": "你是医生。"}, {"role": "user", "content": f"第{i}个问题：{'感冒' * (i % 7)}怎么办？"}],
                64, 0.7, i, f"job-{i}") for i in range(count)]
    return jobs + jobs[:count // 10]


def worker(log: str, out: str, count: str, cap: str) -> None:
    """Ask all jobs and write their outcomes, as a stage would."""
    from zhtune.errors import ZhtuneError
    from zhtune.synthesis.teachers.joblog import JobLog
    from zhtune.synthesis.teachers.limits import Limits
    from zhtune.synthesis.teachers.openai_teacher import Endpoint, OpenAITeacher
    from zhtune.synthesis.teachers.prices import price
    limits = Limits(concurrency=16, attempts=8, timeout=TIMEOUT, backoff=0.02, breaker=200, max_cost=float(cap))
    endpoint = Endpoint(model="fake", base_url=os.environ["BENCH_TEACHER_URL"], api_key_env="BENCH_TEACHER_KEY")
    with JobLog(log) as book:
        try:
            outcomes = OpenAITeacher(endpoint, book, limits, price(INPUT, OUTPUT)).ask(jobs_of(int(count)))
        except ZhtuneError as error:
            sys.exit(str(error))
    rows = [[o.job_id, o.text, o.finish, o.usage, o.error, str(o.cost)] for o in outcomes]
    Path(out).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def run(folder: Path, server: FakeTeacher, count: int, kills: int, seed: int, cap: Decimal = Decimal(0)) -> tuple[int, str]:
    """Run workers until one ends by itself; returns the kills that hit and the last one's stderr."""
    generator, hits = random.Random(seed), 0
    environment = os.environ | {"BENCH_TEACHER_URL": server.url, "BENCH_TEACHER_KEY": "key-of-the-bench", "NO_PROXY": "127.0.0.1"}
    while True:
        begun = server.calls.total()
        process = subprocess.Popen([sys.executable, __file__, "worker", str(folder / "teacher.jsonl"), str(folder / "outcomes.jsonl"),
                                    str(count), str(cap)], env=environment, stderr=subprocess.PIPE, text=True)
        limit, jitter = generator.randrange(1, max(2, count * 2 // max(1, kills))), generator.uniform(0, 0.02)
        while hits < kills and process.poll() is None:
            if server.calls.total() - begun >= limit:
                time.sleep(jitter)
                process.send_signal(signal.SIGKILL)
                hits += 1
                break
            time.sleep(0.002)
        errors = process.communicate()[1]
        if process.returncode != -signal.SIGKILL:
            return hits, errors


def books(folder: Path, server: FakeTeacher) -> dict:
    """The log's books, recounted here from its lines, and the server's, in millionths."""
    lines = [json.loads(line) for line in (folder / "teacher.jsonl").read_text("utf-8").splitlines()]
    ended = {(line["job"], line["attempt"]) for line in lines if line["event"] in ("answered", "failed")}
    sent = {(line["job"], line["attempt"]): Decimal(line["cost"]) for line in lines if line["event"] == "sent"}
    known = [line for line in lines if line["event"] in ("answered", "failed") and line["usage"]]
    unclear = [line for line in lines if line["event"] in ("answered", "failed") and not line["usage"] and line.get("billed", True)]
    ids = {line["response"] for line in known}
    delivered = Counter(digest for digest, _, fault in server.answers.values() if not fault)
    return {
        "calls": server.calls.total(), "log_cost": sum((Decimal(line["cost"]) for line in known), Decimal(0)) * 10**6,
        "server_cost_of_the_same": sum(cost for id, (_, cost, _) in server.answers.items() if id in ids), "ended": len(ended),
        "server_bill": server.bill, "in_flight_at_kills": len(sent.keys() - ended), "repeated_answers": sum(delivered.values()) - len(delivered),
        "held": sum((sent[key] for key in sent.keys() - ended), Decimal(0)) * 10**6
                + sum((sent[line["job"], line["attempt"]] for line in unclear), Decimal(0)) * 10**6,
        "twice_answered": sum(line["event"] == "answered" for line in lines) - len({x["job"] for x in lines if x["event"] == "answered"}),
        "statuses": dict(Counter(line.get("status", "answered") for line in lines if line["event"] in ("answered", "failed"))),
    }


def check(calm: Path, disturbed: Path, count: dict) -> None:
    """What must hold after a run with kills."""
    assert (calm / "outcomes.jsonl").read_bytes() == (disturbed / "outcomes.jsonl").read_bytes(), "outcomes differ from the calm run"
    assert count["repeated_answers"] <= count["in_flight_at_kills"], "calls were repeated that were not in flight at a kill"
    assert count["calls"] <= count["ended"] + count["in_flight_at_kills"] and not count["twice_answered"], "a call was repeated"
    assert count["log_cost"] == count["server_cost_of_the_same"] > 0, "the ledger's cost is not the server's"
    assert count["log_cost"] <= count["server_bill"] <= count["log_cost"] + count["held"], "the bill is outside spent and held"


def main() -> None:
    count, kills, seed = (int(value) for value in [*sys.argv[1:], *("2000", "20", "0")[len(sys.argv) - 1:]])
    with tempfile.TemporaryDirectory(prefix="zhtune-teacher-") as folder:
        calm, faulty, disturbed, capped = (Path(folder) / name for name in ("calm", "faulty", "disturbed", "capped"))
        for path in (calm, faulty, disturbed, capped):
            path.mkdir()
        for path, faults, hits in ((calm, False, 0), (faulty, True, 0), (disturbed, True, kills)):
            began = time.monotonic()
            with FakeTeacher(faults=faults, hang=2 * TIMEOUT) as server:
                hits, errors = run(path, server, count, hits, seed)
                assert not errors, errors
                found = books(path, server)
            numbers = {name: int(value) if isinstance(value, Decimal) else value for name, value in found.items()}
            print(path.name, f"{time.monotonic() - began:.1f} s, {hits} kills,", numbers, flush=True)
            check(calm, path, found)
        cap = found["server_bill"] * Decimal("0.4") / 10**6
        with FakeTeacher(hang=2 * TIMEOUT) as server:
            hits, errors = run(capped, server, count, kills, seed, cap)
            calls = server.calls.total()
            again = run(capped, server, count, 0, seed, cap)[1]
            assert "max_cost" in errors and "max_cost" in again and server.calls.total() == calls, (errors, again)
            assert server.bill <= cap * 10**6, f"bill {server.bill} beyond the cap {cap * 10**6}"
        print(f"capped: {hits} kills, bill {server.bill} of {cap * 10**6:.0f}: {errors.strip()}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
    else:
        main()
