"""`kg-instruct` on the shared real graphs: every clean triple is covered, counted a second time by lines that use nothing of zhtune."""

import hashlib
import json
import shutil

import pytest
from test_kg_formats import run
from test_kg_real import ATTRIBUTES, DATA, MEDICAL, second, shard_rows, tsv_rows

from zhtune.stages.kg_instruct import KgInstructConfig, kg_instruct

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the shared graphs are not here")


@pytest.mark.slow
def test_every_clean_triple_and_value_is_stated(tmp_path):
    (tmp_path / "in").mkdir()
    for file in (DATA / "medical_triples.tsv", *(DATA / "medical_shards").iterdir()):
        shutil.copyfile(file, tmp_path / "in" / file.name)
    graph = run(tmp_path, tmp_path / "in", MEDICAL, on_contradiction="drop")
    made = [kg_instruct(KgInstructConfig(graph=str(graph.path), records_per_fact=1, tasks={"attribute": 20000}, workers=workers,
                                         out=str(tmp_path / f"r{workers}"))) for workers in (1, 2)]
    assert made[0].digest == made[1].digest
    _, triples, values, _ = second(shard_rows() + tsv_rows(), attributes=ATTRIBUTES, contradicting=[("宜吃", "忌吃")])
    wanted = {hashlib.sha1("\0".join(parts).encode()).hexdigest()[:12]: parts for parts in (*triples, *values)}
    assert (len(triples), len(values), len(wanted)) == (90624, 17384, 108008)
    said = set()
    for line in (made[0].path / "records.jsonl").read_text("utf-8").split("\n")[:-1]:
        row = json.loads(line)
        text = row["messages"][0]["content"] + "\n" + row["messages"][1]["content"]
        said |= {name for name in row["source"]["triples"] if wanted[name][0] in text and wanted[name][2] in text}
    assert said == set(wanted)
    report = json.loads((made[0].path / "report.json").read_text("utf-8"))
    ledger = report["coverage"] | report["coverage_of_attributes"]
    assert sum(row["covered"] for row in ledger.values()) == sum(row["triples"] for row in ledger.values()) == len(wanted)
