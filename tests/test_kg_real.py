"""`kg` on the shared real graphs: every count stands here, and is derived a second time by a few lines that use nothing of zhtune."""

import csv
import json
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from test_kg_formats import lines, ontology, report, run, triples, write_xlsx

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "kg"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the shared graphs are not here")

RELATIONS = {"症状": ("症状", "has_symptom", "symptom_data.symptoms"), "并发症": ("疾病", "has_complication", "gaishu_info.has_complication"),
             "科室": ("科室", "belongs_to_department", "gaishu_info.belongs_to_department"), "治疗": ("疗法", "treat_way", "gaishu_info.treat_way"),
             "药物": ("药物", "common_drug", "gaishu_info.common_drug"), "检查": ("检查", "inspection_item", "inspect_info"),
             "宜吃": ("食物", "good_food", "food_info.good_food"), "忌吃": ("食物", "avoid_food", "food_info.avoid_food"),
             "食谱": ("食物", "recommand_recipes", "food_info.recommand_recipes")}
ATTRIBUTES = {"医保": "medical_insurance", "发病率": "disease_ratio", "易感人群": "susceptible_people", "传染方式": "transmission_way",
              "治疗周期": "treat_cycle", "治愈率": "cure_prob", "费用": "treat_cost"}
KIND = {"发病率": ("percent", r"\d+(\.\d+)? ?[%％]"), "治愈率": ("percent", r"\d+(\.\d+)? ?[%％]"),
        "治疗周期": ("range", r"\d+(\.\d+)?[年月周天日个小时]{0,4}([-~～—―]+|至|到)\d+[^\W\d]{0,4}")}
IGNORED = ["gaishu_info.desc", "cause_info", "prevent_info", "nursing_info", "symptom_data.symptom_detail", "food_info.good_diet_text", "food_info.avoid_diet_text"]
MEDICAL = ontology({name: ("疾病", tail, {"field": list(fields)}) for name, (tail, *fields) in RELATIONS.items()},
                   {name: {"field": [field, f"gaishu_info.{field}"], "head": "疾病", "kind": KIND.get(name, ("text",))[0]} for name, field in ATTRIBUTES.items()},
                   rows={"name": "gaishu_info.name", "type": "疾病", "ignore": IGNORED}, contradictions=[["宜吃", "忌吃"]], hygiene={})
WIDE = {ord(c): unicodedata.normalize("NFKC", c) for c in "０１２３４５６７８９" + "".join(chr(0xFF21 + i) + chr(0xFF41 + i) for i in range(26))}
HIDDEN = "\u200b\u200c\u200e\u200f\u2060\ufeff"
FLAWS = ("duplicate", "self_loop", "contradiction", "cut", "sentinel", "not_of_kind", "one_character", "several_types")
SENTINELS = {"无", "暂无", "未知", "不详", "-", "--", "—", "——", "/", "null", "none", "nan", "n/a", "#n/a"}


def same(text):
    """Names as DESIGN §6 has them: NFC, full-width letters and digits narrow, no controls or zero-width characters."""
    shown = (c for c in unicodedata.normalize("NFC", text).translate(WIDE) if c in "\t\n" or (unicodedata.category(c) != "Cc" and c not in HIDDEN))
    return "".join(shown).strip()


def second(rows, attributes=(), contradicting=(), cleaned=True):
    """(counts, triples, attribute values) of rows (head, relation, tail, head type, tail type), without zhtune."""
    count, kept, values, kinds = Counter(), {}, {}, defaultdict(set)
    for head, relation, tail, *types in rows:
        flaw = "sentinel" if {head.lower(), tail.lower()} & SENTINELS else "cut" if head.endswith(("...", "…")) or tail.endswith(("...", "…")) else ""
        count[flaw] += bool(flaw)
        if flaw and cleaned:
            continue
        count["not_of_kind"] += relation in KIND and not re.fullmatch(KIND[relation][1], tail)
        store = values if relation in attributes else kept
        if head == tail and store is kept:
            count["self_loop"] += 1
        elif (head, relation, tail) in store:
            count["duplicate"] += 1
        else:
            store[head, relation, tail] = types
    for left, right in contradicting:
        both = {(h, t) for h, r, t in kept if r == left} & {(h, t) for h, r, t in kept if r == right}
        count["contradiction"] += len(both)
        for h, t in both:
            del kept[h, left, t], kept[h, right, t]
    for (head, _, tail), types in kept.items():
        kinds[head].add(types[0])
        kinds[tail].add(types[1])
    count["one_character"] = sum(len(n) == 1 for n in kinds)
    count["several_types"] = sum(len(k) > 1 for k in kinds.values())
    return count, kept, values, {*kinds, *(h for h, _, _ in values)}


def check(made, rows, counts, metrics, findings, declared=(), **more):
    """The artifact against the numbers here, and against a second derivation."""
    assert made.manifest["counts"] == counts
    assert made.manifest["metrics"] == metrics
    found = report(made)["hygiene"]
    assert {name: n for name, n in found.items() if n} == findings
    again, kept, values, names = second(rows, **more)
    assert (len(rows), len(kept), len(values)) == (counts["in"], metrics["triples"], metrics.get("attributes", 0))
    assert {n: again[n] for n in FLAWS} == {n: found[n] for n in FLAWS}
    pairs = [(triples(made), kept), ([(a["entity"], a["attribute"], a["value"]) for a in lines(made, "attributes")], values),
             ([e["name"] for e in lines(made, "entities")], names | set(declared))]
    assert [len(set(ours) ^ set(theirs)) for ours, theirs in pairs] == [0, 0, 0]
    assert all(len(ours) == len(theirs) for ours, theirs in pairs)


def shard_rows():
    rows = []
    for file in sorted((DATA / "medical_shards").iterdir()):
        for record in json.loads(file.read_text("utf-8")).values():
            head, flat = same(record["gaishu_info"]["name"]), record | record["gaishu_info"] | record["food_info"] | record["symptom_data"]
            for name, (kind, *fields) in RELATIONS.items():
                rows += [(head, name, same(v), "疾病", kind) for v in flat.get(fields[1].split(".")[-1], []) if v.strip()]
            rows += [(head, name, same(flat[f]), "疾病", "") for name, f in ATTRIBUTES.items() if flat.get(f, "").strip()]
    return rows


def test_medical_shards(tmp_path):
    made = run(tmp_path, DATA / "medical_shards", MEDICAL, on_contradiction="drop")
    check(made, shard_rows(), {"in": 28589, "kept": 28315, "dropped": {"contradiction": 166, "cut": 73, "duplicate": 21, "self_loop": 13, "sentinel": 1}},
          {"entities": 5828, "triples": 22875, "relations": 9, "facts": 6671, "attributes": 5440},
          {"duplicate": 21, "self_loop": 13, "contradiction": 83, "cut": 73, "sentinel": 1, "not_of_kind": 502, "one_character": 6, "several_types": 89},
          attributes=ATTRIBUTES, contradicting=[("宜吃", "忌吃")])


def tsv_rows():
    names = {fields[0]: (name, kind) for name, (kind, *fields) in RELATIONS.items()} | {field: (name, "") for name, field in ATTRIBUTES.items()}
    split = [line.split("\t") for line in (DATA / "medical_triples.tsv").read_text("utf-8").split("\n") if line]
    return [(same(h), names[r][0], same(t), "疾病", names[r][1]) for h, r, t in split]


def test_medical_triples(tmp_path):
    made = run(tmp_path, DATA / "medical_triples.tsv", MEDICAL, on_contradiction="drop")
    check(made, tsv_rows(), {"in": 80355, "kept": 79693, "dropped": {"contradiction": 172, "cut": 353, "duplicate": 87, "self_loop": 49, "sentinel": 1}},
          {"entities": 12143, "triples": 67749, "relations": 9, "facts": 16971, "attributes": 11944},
          {"duplicate": 87, "self_loop": 49, "contradiction": 86, "cut": 353, "sentinel": 1, "not_of_kind": 1369, "one_character": 9, "several_types": 220},
          attributes=ATTRIBUTES, contradicting=[("宜吃", "忌吃")])


def test_medical_triples_as_they_were_read_before_there_were_rules(tmp_path):
    made = run(tmp_path, DATA / "medical_triples.tsv")
    rows = [(same(h), r, same(t), "实体", "实体") for h, r, t in (line.split("\t") for line in (DATA / "medical_triples.tsv").read_text("utf-8").split("\n") if line)]
    check(made, rows, {"in": 80355, "kept": 80218, "dropped": {"duplicate": 87, "self_loop": 50}},
          {"entities": 13978, "triples": 80218, "relations": 15, "facts": 28916},
          {"duplicate": 87, "self_loop": 50, "cut": 353, "sentinel": 1, "one_character": 11}, cleaned=False)
    assert made.digest == "3630824987c047666db04e56701ba5b14280bb3bcbc00d8786085470cf94d0e3"    # what it was before


def test_medical_spo(tmp_path):
    made = run(tmp_path, DATA / "medical.spo")
    rows = [(*map(same, line.split("\t")), "实体", "实体") for line in (DATA / "medical.spo").read_text("utf-8").split("\n") if line]
    check(made, rows, {"in": 13864, "kept": 13864, "dropped": {}}, {"entities": 13558, "triples": 13864, "relations": 1, "facts": 13553}, {})


def test_stock(tmp_path):
    made = run(tmp_path, DATA / "stock")
    tables = {file.stem: list(csv.reader(file.open(encoding="utf-8", newline="")))[1:] for file in (DATA / "stock").iterdir()}
    name = {("s", i): same(n) for i, n, *_ in tables["stock"]} | {("c", i): same(n) for i, n, _ in tables["concept"]} | {("i", i): same(n) for i, n, _ in tables["industry"]}
    rows = [(same(n), "code", code, "Company", "") for _, n, code, _ in tables["stock"]]
    rows += [(name["s", s], "concept_of", name["c", c], "Company", "Concept") for s, c, _ in tables["stock_concept"]]
    rows += [(name["s", s], "industry_of", name["i", i], "Company", "Industry") for s, i, _ in tables["stock_industry"]]
    check(made, rows, {"in": 15538, "kept": 15531, "dropped": {"duplicate": 6, "self_loop": 1}},
          {"entities": 3396, "triples": 12343, "relations": 2, "facts": 5614, "attributes": 3188},
          {"duplicate": 6, "self_loop": 1, "shared_name": 4, "several_types": 2}, attributes={"code"}, declared=set(name.values()))
    assert len(name) - len(set(name.values())) == 4
    assert {a["value"] for a in lines(made, "attributes")} == {row[2] for row in tables["stock"]}


def test_traditional_medicine(tmp_path):
    made = run(tmp_path, DATA / "tcm_zhongyao_relations.json")
    read = [(r["node_1"].split("\t"), r["relation"], r["node_2"].split("\t")) for r in json.loads((DATA / "tcm_zhongyao_relations.json").read_text("utf-8"))]
    check(made, [(same(h), r, same(t), hk, tk) for (hk, h), r, (tk, t) in read], {"in": 3335, "kept": 3334, "dropped": {"self_loop": 1}},
          {"entities": 1524, "triples": 3334, "relations": 9, "facts": 877}, {"self_loop": 1, "one_character": 34, "several_types": 8})


def test_traditional_medicine_with_its_other_names_as_aliases(tmp_path):
    kinds = {"attending": "主治", "distribution area": "分布", "functions": "功能", "from": "来源", "five flavors": "五味", "channel tropism": "归经",
             "four properties": "四气"}
    data = ontology({k: ("中药名", k, {"field": r}) for r, k in kinds.items()} | {"包括": ("中药材", "中药名", {"field": "include", "inverse": "属于"})},
                    aliases={"field": "another name"})
    made = run(tmp_path, DATA / "tcm_zhongyao_relations.json", data)
    read = [(r["node_1"].split("\t")[1], r["relation"], r["node_2"].split("\t")[1]) for r in json.loads((DATA / "tcm_zhongyao_relations.json").read_text("utf-8"))]
    others = {(same(h), same(t)) for h, r, t in read if r == "another name" and h != t}
    assert {(e["name"], alias) for e in lines(made, "entities") for alias in e["aliases"]} == others
    assert made.manifest["counts"] == {"in": 3335, "kept": 3334, "dropped": {"duplicate_alias": 1}}
    assert made.manifest["metrics"] == {"entities": 951, "triples": 2752, "relations": 8, "facts": 778, "aliases": 582}
    assert len({n for h, r, t in read if r != "another name" for n in (same(h), same(t))} | {h for h, _ in others}) == 951


def test_travel(tmp_path):
    made = run(tmp_path, DATA / "kdconv_travel_kb.json")
    read = [t for part in json.loads((DATA / "kdconv_travel_kb.json").read_text("utf-8")).values() for t in part]
    check(made, [(same(h), r, same(t), "实体", "实体") for h, r, t in read],
          {"in": 12509, "kept": 10964, "dropped": {"duplicate": 1541, "self_loop": 4}},
          {"entities": 5037, "triples": 10964, "relations": 7, "facts": 6765}, {"duplicate": 1541, "self_loop": 4})


def test_travel_with_attributes(tmp_path):
    named = {"Information": "简介", "地址": "地址", "门票": "门票", "开放时间": "开放时间", "建议游玩时间": "建议游玩时间", "电话": "电话"}
    data = ontology({"周边景点": ("景点", "景点", {})}, {name: {"field": field, "head": "景点"} for field, name in named.items()})
    made = run(tmp_path, DATA / "kdconv_travel_kb.json", data)
    read = [t for part in json.loads((DATA / "kdconv_travel_kb.json").read_text("utf-8")).values() for t in part]
    check(made, [(same(h), named.get(r, r), same(t), "景点", "景点") for h, r, t in read], {"in": 12509, "kept": 10964, "dropped": {"duplicate": 1541, "self_loop": 4}},
          {"entities": 1396, "triples": 5352, "relations": 1, "facts": 1153, "attributes": 5612}, {"duplicate": 1541, "self_loop": 4},
          attributes=set(named.values()))


def test_a_spreadsheet_made_of_the_triples_is_the_same_graph(tmp_path):
    """The first 300 diseases as a wide sheet, codes and all, against the same triples as .tsv."""
    split = [line.split("\t") for line in (DATA / "medical_triples.tsv").read_text("utf-8").split("\n") if line]
    heads = dict.fromkeys(list(dict.fromkeys(h for h, _, _ in split))[:300])
    mine = [row for row in split if row[0] in heads]
    columns = [f[0] for _, *f in RELATIONS.values()] + [f for f in ATTRIBUTES.values() if f != "treat_cost"]
    assert not any("|" in tail for _, _, tail in mine)
    cells = defaultdict(list)
    for h, r, t in mine:
        cells[h, r].append(t)
    write_xlsx(tmp_path / "wide.xlsx", {"疾病": [["名称", *columns], *([h, *("|".join(cells[h, c]) for c in columns)] for h in heads)]})
    (tmp_path / "long.tsv").write_text("\n".join("\t".join(row) for row in mine), "utf-8")
    data = json.loads(json.dumps(MEDICAL)) | {"rows": {"name": "名称", "type": "疾病"}}
    for entry in [*data["relations"].values(), *data["attributes"].values()]:
        entry["split"] = "[|]"
    sheet = run(tmp_path, tmp_path / "wide.xlsx", data, name="sheet", order="sorted", on_contradiction="drop")
    long = run(tmp_path, tmp_path / "long.tsv", data, name="long", order="sorted", on_contradiction="drop")
    assert sheet.manifest["counts"] == long.manifest["counts"] and sheet.manifest["metrics"] == long.manifest["metrics"]
    wanted = {same(h) for h in heads}
    rows = [row for row in tsv_rows() if row[0] in wanted]
    check(sheet, rows, {"in": 12362, "kept": 12219, "dropped": {"contradiction": 66, "cut": 55, "duplicate": 11, "self_loop": 11}},
          {"entities": 3146, "triples": 10419, "relations": 9, "facts": 2511, "attributes": 1800},
          {"duplicate": 11, "self_loop": 11, "contradiction": 33, "cut": 55, "not_of_kind": 250, "one_character": 5, "several_types": 55},
          attributes=ATTRIBUTES, contradicting=[("宜吃", "忌吃")])
    for name in ("entities", "triples", "attributes"):
        assert lines(sheet, name) == lines(long, name)
