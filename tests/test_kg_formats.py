"""Every kind of graph that `kg` reads: one graph in many encodings, drafts, and what is refused. Real files: test_kg_real.py."""

import io
import json
import random
import re
import zipfile
from xml.sax.saxutils import escape

import pytest
import yaml

from zhtune.corpus.sheets import read_sheets
from zhtune.errors import DataError
from zhtune.graph.draft import draft_attribute, draft_ontology
from zhtune.graph.export import to_networkx
from zhtune.graph.fields import is_kind, kind_of
from zhtune.graph.graph import Graph
from zhtune.stages.kg import KgConfig, kg


def ontology(relations, attributes=None, types=None, **others):
    """Ontology data: relations {name: (head, tail, {more keys})}, attributes {name: {keys}}."""
    made = draft_ontology({name: ((head,), (tail,)) for name, (head, tail, _) in relations.items()}, "toy")
    for name, (_, _, more) in relations.items():
        made["relations"][name] |= more
    made["attributes"] = {name: draft_attribute(name, "text", name) | more for name, more in (attributes or {}).items()}
    made["types"] = sorted({*made["types"], *(types or [])})
    return made | others


def run(tmp_path, source, data=None, name="g", **more):
    if data is not None:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False), "utf-8")
        more["ontology"] = str(tmp_path / f"{name}.yaml")
    return kg(KgConfig(input=str(source), out=str(tmp_path / name), **more))


def lines(made, name):
    return [json.loads(line) for line in (made.path / f"{name}.jsonl").read_text("utf-8").split("\n") if line]


def triples(made):
    return [(t["head"], t["relation"], t["tail"]) for t in lines(made, "triples")]


def attributes(made):
    return [(a["entity"], a["attribute"], a["value"]) for a in lines(made, "attributes")]


def report(made):
    return json.loads((made.path / "report.json").read_text("utf-8"))


FORMATS = {"date": 14, "percent": 10, "whole": 9, "code": 164, "money": 165, "red": 166, "room": 167}


def write_xlsx(path, sheets, merged=()):
    """A spreadsheet of {name: rows}; a str is a text cell, a number a number, ("date", n) a day since 1899-12-30, (key of FORMATS, n) a number; C2:C4 in `merged`."""
    def cell(value):
        if value is None:
            return "<c/>"
        if isinstance(value, tuple):
            return f'<c s="{[*FORMATS].index(value[0]) + 1}"><v>{value[1]}</v></c>'
        if isinstance(value, bool):
            return f'<c t="b"><v>{int(value)}</v></c>'
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(value)}</t></is></c>'
        return f"<c><v>{value}</v></c>"
    main, office = "http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package, kind = "http://schemas.openxmlformats.org/package/2006", "application/vnd.openxmlformats-officedocument.spreadsheetml"
    numbered = list(enumerate(sheets.items(), 1))
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("[Content_Types].xml", f'<Types xmlns="{package}/content-types"><Default Extension="xml" ContentType="application/xml"/>'
                      '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
                      f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/></Types>')
        book.writestr("_rels/.rels", f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>')
        book.writestr("xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
                      + "".join(f'<sheet name="{n}" sheetId="{i}" r:id="r{i}"/>' for i, (n, _) in numbered) + "</sheets></workbook>")
        book.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}/relationships">'
                      + "".join(f'<Relationship Id="r{i}" Type="{office}/worksheet" Target="worksheets/s{i}.xml"/>' for i, _ in numbered)
                      + f'<Relationship Id="r0" Type="{office}/styles" Target="styles.xml"/></Relationships>')
        book.writestr("xl/styles.xml", f'<styleSheet xmlns="{main}"><numFmts><numFmt numFmtId="164" formatCode="00000"/>'
                      '<numFmt numFmtId="165" formatCode="&quot;¥&quot;#,##0.00"/><numFmt numFmtId="166" formatCode="[Blue]0.00%;[Red]-0.00%"/>'
                      '<numFmt numFmtId="167" formatCode="0.0%_);\\(0.0%\\)"/></numFmts><cellXfs><xf numFmtId="0"/>'
                      + "".join(f'<xf numFmtId="{i}" applyNumberFormat="1"/>' for i in FORMATS.values()) + "</cellXfs></styleSheet>")
        for i, (_, rows) in numbered:
            book.writestr(f"xl/worksheets/s{i}.xml", f'<worksheet xmlns="{main}"><sheetData>'
                          + "".join(f'<row>{"".join(map(cell, row))}</row>' for row in rows) + "</sheetData>"
                          + (f'<mergeCells>{"".join(f"<mergeCell ref={chr(34)}{r}{chr(34)}/>" for r in merged)}</mergeCells>' if merged else "") + "</worksheet>")


# One graph, many encodings. The order of heads, and of tails within a fact, is part of what it says.

TOY = ontology({"用药": ("病", "药", {"field": ["drug"], "split": "[、;]", "inverse": "用于"}), "宜吃": ("病", "食", {"split": "、"})},
               {"治愈率": {"kind": "percent", "head": "病"}, "编码": {"head": "药"}, "上市": {"head": "药"}, "价": {"kind": "number", "head": "药"}},
               rows={"type": "病", "type_field": "类型", "name": "名称"}, aliases={"field": "别名", "split": "、"})
EDGES = [("感冒", "用药", "乙药"), ("感冒", "用药", "甲药"), ("感冒", "宜吃", "白粥"), ("咳嗽", "用药", "甲药"), ("咳嗽", "用药", "丙\"药\","), ("咳嗽", "宜吃", "雪梨")]
VALUES = [("感冒", "治愈率", "98%"), ("乙药", "编码", "00123450"), ("甲药", "编码", "7e5"), ("甲药", "上市", "2023-03-01"), ("甲药", "价", "12")]
ALIASES = [("感冒", "别名", "伤风"), ("感冒", "别名", "上感"), ("甲药", "别名", "甲片")]
KINDS = {"感冒": "病", "咳嗽": "病", "乙药": "药", "甲药": "药", "丙\"药\",": "药", "白粥": "食", "雪梨": "食"}


def of(name, relation):
    return [tail for head, r, tail in [*EDGES, *VALUES, *ALIASES] if (head, r) == (name, relation)]


def wide():
    columns = ["用药", "宜吃", "治愈率", "编码", "上市", "价", "别名"]
    return [["名称", "类型", *columns]] + [[n, KINDS[n], *("、".join(of(n, c)) for c in columns)] for n in ("感冒", "咳嗽", "乙药", "甲药")]


def csv_text(rows, mark=","):
    return "\r\n".join(mark.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows) + "\r\n"


def write_triples(path, encoding, rows=(*EDGES, *VALUES, *ALIASES)):
    mark = "\t" if path.suffix == ".tsv" else ","
    text = "\n".join("\t".join(row) for row in rows) if path.suffix == ".spo" else csv_text(rows, mark)
    path.write_bytes(text.encode(encoding))


def write_entities(path):
    rows = [{"名称": n, "类型": KINDS[n], **{c: v if len(v) > 1 else v[0] for c in TOY["relations"] | TOY["attributes"] | {"别名": 0} if (v := of(n, c))}}
            for n in ("感冒", "咳嗽", "乙药", "甲药")]
    rows[3]["价"] = 12
    text = "\n".join(json.dumps(r, ensure_ascii=False) for r in rows) if path.suffix == ".jsonl" else json.dumps(dict(enumerate(rows)), ensure_ascii=False)
    path.write_text(text, "utf-8")


def properties(name):
    found = {r: of(name, r) for r in ("治愈率", "编码", "上市", "价", "别名")}
    return {"名称": name} | {r: v for r, v in found.items() if v}


def write_neo4j(folder):
    folder.mkdir()
    columns = ["治愈率", "编码", "上市:date", "价:int", "别名:string[]"]
    rows = [["key:ID(N)", "名称", *columns, ":LABEL"]]
    for i, name in enumerate(KINDS):
        rows.append([f"0{i}", name, *(";".join(properties(name).get(c.split(":")[0], [])) for c in columns), f"{KINDS[name]};Thing"])
    (folder / "a_nodes.csv").write_text(csv_text(rows), "utf-8")
    ids = {name: f"0{i}" for i, name in enumerate(KINDS)}
    (folder / "b_edges.csv").write_text(csv_text([[":START_ID(N)", ":END_ID(N)", ":TYPE"], *([ids[h], ids[t], "drug" if r == "用药" else r] for h, r, t in EDGES)]), "utf-8")


def write_apoc(path):
    ids = {name: str(i) for i, name in enumerate(KINDS)}
    rows = [{"type": "node", "id": ids[n], "labels": ["Thing", k], "properties": {p: v if len(v) > 1 else v[0] for p, v in properties(n).items()}} for n, k in KINDS.items()]
    rows += [{"type": "relationship", "id": str(i), "label": r, "start": {"id": ids[h], "labels": [KINDS[h]]}, "end": {"id": ids[t]}} for i, (h, r, t) in enumerate(EDGES)]
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), "utf-8")


def write_apoc_csv(path):
    ids = {name: str(i) for i, name in enumerate(KINDS)}
    columns = ["名称", "治愈率", "编码", "上市", "价", "别名"]
    rows = [["_id", "_labels", *columns, "_start", "_end", "_type"]]
    rows += [[ids[n], f":{k}:Thing", *("、".join(v) if isinstance(v := properties(n).get(c, ""), list) else v for c in columns), "", "", ""] for n, k in KINDS.items()]
    rows += [["", "", *[""] * len(columns), ids[h], ids[t], r] for h, r, t in EDGES]
    path.write_text(csv_text(rows), "utf-8")


def write_graphml(path):
    keys = ["名称", "治愈率", "编码", "上市", "价", "别名", "relation", "类型"]
    data = {k: f"d{i}" for i, k in enumerate(keys)}
    ids = {name: f"n{i}" for i, name in enumerate(KINDS)}

    def element(tag, head, values):
        return f"<{tag} {head}>" + "".join(f'<data key="{data[k]}">{escape(v)}</data>' for k, v in values.items()) + f"</{tag}>"
    nodes = [element("node", f'id="{ids[n]}"', {"类型": k} | {p: "、".join(v) if isinstance(v, list) else v for p, v in properties(n).items()}) for n, k in KINDS.items()]
    edges = [element("edge", f'source="{ids[h]}" target="{ids[t]}"', {"relation": r}) for h, r, t in EDGES]
    named = "".join(f'<key id="{i}" for="all" attr.name="{k}" attr.type="string"/>' for k, i in data.items())
    path.write_text(f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{named}<graph edgedefault="directed">{"".join([*nodes, *edges])}</graph></graphml>', "utf-8")


def write_rdf(path, shuffled=None):
    ids = {name: f"<http://example.org/e/{i}>" for i, name in enumerate(KINDS)}
    label, kind = "<http://www.w3.org/2000/01/rdf-schema#label>", "<http://www.w3.org/1999/02/22-rdf-syntax-ns#type>"

    def text(value):
        return json.dumps(value, ensure_ascii=False)
    rows = [f"{ids[h]} <http://example.org/{'drug' if r == '用药' else r}> {ids[t]} ." for h, r, t in EDGES]
    rows += [f"{i} {label} {text(n)}@zh .\n{i} {label} \"node\"@en .\n{i} {kind} <http://example.org/type#{KINDS[n]}> ." for n, i in ids.items()]
    rows += [f"{ids[h]} <http://example.org/p/{r}> {text(v)} ." for h, r, v in [*VALUES, *ALIASES]]
    path.write_text("\n".join(rows) + "\n", "utf-8")


def write_sheet(path):
    rows = wide()
    rows[4][6:8] = [("date", 44986), 12]                    # 2023-03-01
    write_xlsx(path, {"空": [], "图": rows})


def write_wide(path):
    path.write_bytes(csv_text(wide()).encode("gb18030"))


ENCODINGS = {
    "a.csv": lambda p: write_triples(p, "gb18030"), "b.tsv": lambda p: write_triples(p, "utf-8-sig"), "c.spo": lambda p: write_triples(p, "utf-16"),
    "d.csv": write_wide, "e.xlsx": write_sheet, "f.json": write_entities, "g.jsonl": write_entities, "neo4j": write_neo4j, "h.jsonl": write_apoc, "m.json": write_apoc,
    "i.csv": write_apoc_csv, "j.graphml": write_graphml, "k.nt": write_rdf, "l.ttl": write_rdf}


@pytest.mark.parametrize("name", ENCODINGS)
def test_one_graph_in_fourteen_encodings_has_one_digest(tmp_path, name):
    if name[-3:] in (".nt", "ttl"):
        pytest.importorskip("rdflib")
    ENCODINGS[name](tmp_path / name)
    made = run(tmp_path, tmp_path / name, TOY)
    assert triples(made) == EDGES
    assert attributes(made) == [VALUES[0], VALUES[1], VALUES[2], VALUES[3], VALUES[4]]
    found = {e["name"]: (e["type"], e["aliases"]) for e in lines(made, "entities")}
    assert found == {n: (k, {"感冒": ["伤风", "上感"], "甲药": ["甲片"]}.get(n, [])) for n, k in KINDS.items()}
    assert [e["name"] for e in lines(made, "entities")] == ["感冒", "乙药", "甲药", "白粥", "咳嗽", "丙\"药\",", "雪梨"]
    assert made.digest == "06372fcd23e41bf1f7f7107d628326cf24db78d4a42dfa6fe3dc1c9fd4626f06"


@pytest.mark.parametrize("name", ["a.csv", "h.jsonl", "k.nt"])
def test_sorted_order_makes_the_digest_independent_of_the_order_of_the_data(tmp_path, name):
    if name == "k.nt":
        pytest.importorskip("rdflib")
    ENCODINGS[name](tmp_path / name)
    digests = set()
    for seed in range(3):
        rows = (tmp_path / name).read_bytes().splitlines(keepends=True)
        random.Random(seed).shuffle(rows)
        (tmp_path / f"{seed}{name}").write_bytes(b"\n".join(r.rstrip(b"\r\n") for r in rows) + b"\n")
        digests.add(run(tmp_path, tmp_path / f"{seed}{name}", TOY, name=f"g{seed}", order="sorted").digest)
    assert digests == {"3b763d3c40cb2320092472d231e00b6919feb5a02c2678ab2ec27bae36c51690"}


def test_graphml_goes_out_and_comes_back(tmp_path):
    networkx = pytest.importorskip("networkx")
    write_triples(tmp_path / "a.csv", "utf-8")
    made = run(tmp_path, tmp_path / "a.csv", TOY, graphml=True)
    graph = to_networkx(made.path)
    assert graph.nodes["感冒"] == {"name": "感冒", "type": "病", "aliases": "伤风；上感", "治愈率": "98%"}
    assert [(h, t, k, d["relation"]) for h, t, k, d in graph.out_edges("感冒", keys=True, data=True)] == [("感冒", t, r, r) for h, r, t in EDGES if h == "感冒"]
    with pytest.raises(DataError, match="is no graph artifact"):
        to_networkx(tmp_path)
    drawn = networkx.read_graphml(made.path / "graph.graphml")
    assert (drawn.is_directed(), drawn.number_of_nodes(), drawn.number_of_edges()) == (True, 7, 6)
    assert drawn.nodes["n2"] == {"name": "甲药", "type": "药", "aliases": "甲片", "编码": "7e5", "上市": "2023-03-01", "价": "12"}
    split = json.loads(json.dumps(TOY)) | {"rows": {"name": "name", "type_field": "type"}, "aliases": {"field": ["别名", "aliases"], "split": "；"}}
    plain, back = run(tmp_path, tmp_path / "a.csv", split, name="p"), run(tmp_path, made.path / "graph.graphml", split, name="b")
    assert back.digest == plain.digest


def test_an_inverse_name_turns_a_triple_round_and_a_graph_knows_aliases_and_attributes(tmp_path):
    write_triples(tmp_path / "a.csv", "utf-8", [("甲药", "用于", "感冒"), ("感冒", "治愈率", "98%"), ("感冒", "治愈率", "9成"), ("感冒", "别名", "伤风")])
    made = run(tmp_path, tmp_path / "a.csv", TOY)
    assert triples(made) == [("感冒", "用药", "甲药")] and made.manifest["counts"] == {"in": 4, "kept": 4, "dropped": {}}
    assert report(made)["hygiene"]["not_of_kind"] == 1
    graph = Graph.open(made.path)
    assert graph.aliases == {"感冒": ["伤风"]} and graph.attributes == {("感冒", "治愈率"): ["98%", "9成"]}


def test_what_is_dropped_is_named_and_triple_files_keep_what_they_kept(tmp_path):
    rows = [("感冒", "用药", "无"), ("感冒", "用药", "N/A"), ("感冒", "用药", "很长的…"), ("感冒", "用药", "甲药"), ("感冒", "用药", "甲药"), ("感冒", "宜吃", "感冒")]
    for name in ("a.csv", "b.spo"):
        write_triples(tmp_path / name, "utf-8", rows)
    old = run(tmp_path, tmp_path / "a.csv", TOY, name="old")
    new = run(tmp_path, tmp_path / "b.spo", TOY, name="new")
    told = run(tmp_path, tmp_path / "a.csv", TOY | {"hygiene": {"sentinels": ["无"], "cut": "keep"}}, name="told")
    assert [t for _, _, t in triples(old)] == ["无", "N/A", "很长的…", "甲药"]
    assert new.manifest["counts"] == {"in": 6, "kept": 1, "dropped": {"cut": 1, "duplicate": 1, "self_loop": 1, "sentinel": 2}}
    assert [t for _, _, t in triples(told)] == ["N/A", "很长的…", "甲药"]
    for made, sentinels in ((old, 2), (new, 2), (told, 1)):
        found = report(made)["hygiene"]
        assert (found["sentinel"], found["cut"], found["duplicate"], found["self_loop"]) == (sentinels, 1, 1, 1)
    assert lines(new, "dropped")[2] == {"reason": "cut", "line": 3, "triple": ["感冒", "用药", "很长的…"]}
    page = (new.path / "report.html").read_text("utf-8")
    assert "截断的值" in page and '<svg role="img" viewBox="0 0 640 480"' in page and not re.search(r"https?://(?!www\.w3\.org)", page)


def test_a_draft_reads_lists_as_relations_scalars_as_attributes_and_can_be_given_back(tmp_path):
    (tmp_path / "e.json").write_text(json.dumps([
        {"_id": {"$oid": "5b"}, "name": "感冒", "药物": ["甲药", "乙药"], "info": {"治愈率": "95%", "价": 0.50, "别名": ["伤风"]}, "医保": True, "空": None},
        {"_id": {"$oid": "5c"}, "name": "咳嗽", "药物": ["甲药"], "info": {"治愈率": "98%", "价": 12345678901234567890123}}], ensure_ascii=False).replace("0.5,", "0.50,"), "utf-8")
    made = run(tmp_path, tmp_path / "e.json")
    assert triples(made) == [("感冒", "药物", "甲药"), ("感冒", "药物", "乙药"), ("咳嗽", "药物", "甲药")]
    assert attributes(made) == [("感冒", "治愈率", "95%"), ("感冒", "价", "0.50"), ("感冒", "医保", "true"), ("咳嗽", "治愈率", "98%"), ("咳嗽", "价", "12345678901234567890123")]
    data = yaml.safe_load((made.path / "ontology.yaml").read_text("utf-8"))
    assert data["rows"] == {"name": ["name"], "ignore": ["_id.$oid"]} and data["aliases"]["field"] == ["info.别名"]
    assert {n: (a["kind"], a["field"]) for n, a in data["attributes"].items()} == {"治愈率": ("percent", "info.治愈率"), "价": ("number", "info.价"), "医保": ("text", "医保")}
    assert run(tmp_path, tmp_path / "e.json", data, name="again").digest == made.digest


def test_a_draft_of_a_table_finds_the_columns_of_lists(tmp_path):
    rows = [["名称", "用药", "简介", "编码"], ["感冒", "甲药、乙药", "常见；一周内好转，多数人不需要去医院看病就能够自己好起来，但要多喝水", "007"], ["咳嗽", "甲药", "", "008"]]
    (tmp_path / "t.csv").write_text(csv_text(rows), "utf-8")
    made = run(tmp_path, tmp_path / "t.csv")
    assert triples(made) == [("感冒", "用药", "甲药"), ("感冒", "用药", "乙药"), ("咳嗽", "用药", "甲药")]
    assert [a[1:] for a in attributes(made) if a[1] != "简介"] == [("编码", "007"), ("编码", "008")]
    assert {e["name"]: e["type"] for e in lines(made, "entities")} == {"感冒": "实体", "甲药": "用药", "乙药": "用药", "咳嗽": "实体"}


def test_an_inverse_column_of_several_names_turns_each_round(tmp_path):
    (tmp_path / "t.csv").write_text("名称,用于,编码\n甲药,感冒;咳嗽;头痛,007\n", "utf-8")
    made = run(tmp_path, tmp_path / "t.csv", TOY | {"rows": {"type": "药", "name": "名称"}})
    assert triples(made) == [("感冒", "用药", "甲药"), ("咳嗽", "用药", "甲药"), ("头痛", "用药", "甲药")]


def test_a_table_of_three_columns_is_known_by_any_of_its_names(tmp_path):
    for number, text in enumerate(("代码,标题,类型\n1,甲,病\n", "id,name,type\n1,甲,病\n", "甲,属于,乙\n丙,属于,丁\n", "甲,类型,公司\n甲,名称,阿甲\n")):
        (tmp_path / f"{number}.csv").write_text(text, "utf-8")
    read = [run(tmp_path, tmp_path / f"{number}.csv", name=f"g{number}") for number in (0, 2, 3)]
    assert [triples(made) for made in read] == [[], [("甲", "属于", "乙"), ("丙", "属于", "丁")], [("甲", "类型", "公司"), ("甲", "名称", "阿甲")]]
    assert attributes(read[0]) == [("甲", "代码", "1")]
    with pytest.raises(DataError, match=r"1.csv: names entities \(the column name\) and says nothing of them"):     # and it is no triple
        run(tmp_path, tmp_path / "1.csv", name="g1")
    (tmp_path / "own.csv").write_text("疾病,drug,宜吃\n感冒,甲药、乙药,白粥\n", "utf-8")
    made = run(tmp_path, tmp_path / "own.csv", TOY | {"rows": {"type": "病"}}, name="own")
    assert triples(made) == [("感冒", "用药", "甲药"), ("感冒", "用药", "乙药"), ("感冒", "宜吃", "白粥")]


BRANCHES = [["网点名称", "电话", "地址"], ["城东支行", "0571-88001000", "某路1号"], ["城西支行", "0571-88001001", "某路2号"], ["滨江支行", "0571-88001002", "某路3号"]]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.xlsx"])
def test_a_table_of_three_unknown_columns_is_told_from_triples_by_its_second(tmp_path, name):
    if name == "t.xlsx":
        write_xlsx(tmp_path / name, {"网点": BRANCHES})
    else:
        (tmp_path / name).write_text(csv_text(BRANCHES, "\t" if name == "t.tsv" else ","), "utf-8")
    made = run(tmp_path, tmp_path / name)
    assert triples(made) == [] and attributes(made) == [(row[0], column, cell) for row in BRANCHES[1:] for column, cell in zip(BRANCHES[0][1:], row[1:])]


@pytest.mark.parametrize(("text", "wide", "said"), [
    ("产品,额度,期限\n甲,30万,3年\n乙,30万,5年\n", True, "read as a wide table"),             # two rows, but no relation holds a digit
    ("产品,城市,期限\n甲,北京,3年\n乙,北京,5年\n丙,上海,1年\n", False, "its first row is read as a triple; if it is a header, name its first column 名称"),
    ("名称,城市,期限\n甲,北京,3年\n乙,北京,5年\n丙,上海,1年\n", True, ""),                  # which is the remedy
    ("感冒,症状,发热\n感冒,药,甲\n感冒,科室,内科\n感冒,检查,乙\n", False, ""),                # one entity, each row its own relation
    ("感冒,症状,发热\n咳嗽,药,甲\n", False, "its first row is read as a triple"),
    ("感冒,并发,咳嗽\n咳嗽,药,甲\n头痛,科室,内科\n骨折,检查,乙\n", False, ""),                # a cell of the first row comes again
    ("感冒,药,甲\n咳嗽,症状,丙\n头痛,药,乙\n骨折,检查,丁\n", False, "")])
def test_few_triples_without_a_header_stay_triples(tmp_path, caplog, text, wide, said):
    caplog.set_level("INFO", "zhtune")
    (tmp_path / "t.csv").write_text(text, "utf-8")
    made = run(tmp_path, tmp_path / "t.csv")
    rows = [tuple(line.split(",")) for line in text.splitlines()]
    assert (triples(made) == []) is wide and (wide or sorted(triples(made)) == sorted(rows))
    assert ("t.csv: " in caplog.text) is bool(said) and said in caplog.text


def test_an_ontology_that_knows_the_relations_of_rows_makes_them_triples(tmp_path):
    write_triples(tmp_path / "a.csv", "utf-8", [("感冒", "用药", "甲药"), ("咳嗽", "宜吃", "雪梨"), ("甲药", "编码", "7")])
    made = run(tmp_path, tmp_path / "a.csv", TOY)
    assert (triples(made), attributes(made)) == ([("感冒", "用药", "甲药"), ("咳嗽", "宜吃", "雪梨")], [("甲药", "编码", "7")])


def test_a_relation_of_a_triple_file_is_divided_as_a_column_is(tmp_path):
    write_triples(tmp_path / "a.csv", "utf-8", [("感冒", "用药", "乙药、甲药"), ("感冒", "用药", "甲药"), ("丙药", "用于", "感冒; 咳嗽"), ("感冒", "宜吃", "白粥;姜汤")])
    made = run(tmp_path, tmp_path / "a.csv", TOY)
    assert triples(made) == [("感冒", "用药", "乙药"), ("感冒", "用药", "甲药"), ("感冒", "用药", "丙药"), ("咳嗽", "用药", "丙药"), ("感冒", "宜吃", "白粥;姜汤")]
    assert made.manifest["counts"] == {"in": 6, "kept": 5, "dropped": {"duplicate": 1}}
    assert lines(made, "dropped") == [{"reason": "duplicate", "line": 2, "triple": ["感冒", "用药", "甲药"]}]
    assert [e["name"] for e in lines(made, "entities")] == ["感冒", "乙药", "甲药", "丙药", "咳嗽", "白粥;姜汤"]


def test_the_name_of_a_node_is_never_divided(tmp_path):
    rows = [{"type": "node", "id": str(i), "labels": [kind], "properties": {"名称": name}} for i, (name, kind) in enumerate([("感冒", "病"), ("甲、乙片", "药")])]
    rows.append({"type": "relationship", "id": "0", "label": "用药", "start": {"id": "0"}, "end": {"id": "1"}})
    (tmp_path / "g.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    assert triples(run(tmp_path, tmp_path / "g.jsonl", TOY)) == [("感冒", "用药", "甲、乙片")]


def test_each_table_of_a_workbook_is_named_by_its_own_first_column(tmp_path):
    write_xlsx(tmp_path / "t.xlsx", {"产品": [["产品名称", "年利率"], ["安居贷", "3.85%"]], "网点": [["网点名称", "电话"], ["城东支行", "0571"]],
                                     "额度": [["产品名称", "最高额度"], ["安居贷", "5万"]]})
    made = run(tmp_path, tmp_path / "t.xlsx")
    assert attributes(made) == [("安居贷", "年利率", "3.85%"), ("安居贷", "最高额度", "5万"), ("城东支行", "电话", "0571")]
    data = yaml.safe_load((made.path / "ontology.yaml").read_text("utf-8"))
    assert data["rows"]["name"] == ["产品名称", "网点名称"]
    write_xlsx(tmp_path / "n.xlsx", {"产品": [["产品名称", "年利率"], ["安居贷", "3.85%"]], "网点": [["序号", "网点名称", "电话"], ["1", "城东支行", "0571"]]})
    assert attributes(run(tmp_path, tmp_path / "n.xlsx", name="n")) == [("安居贷", "年利率", "3.85%"), ("城东支行", "电话", "0571")]
    with pytest.raises(DataError, match=r"t.xlsx\[网点\]:2: an entity has no name: none of 产品名称 holds a text; say under rows.name of the ontology .* of 网点名称, 电话"):
        run(tmp_path, tmp_path / "t.xlsx", data | {"rows": {"name": ["产品名称"]}}, name="h")
    assert not (tmp_path / "h").exists()


def test_a_folder_of_triples_tells_what_it_does_not_read(tmp_path, caplog):
    caplog.set_level("INFO", "zhtune")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "triples.jsonl").write_text('["甲", "属于", "乙"]\n', "utf-8")
    (tmp_path / "in" / "entities.csv").write_text("name,价\n甲,3\n", "utf-8")
    (tmp_path / "in" / "CARD.md").write_text("x", "utf-8")
    assert triples(run(tmp_path, tmp_path / "in")) == [("甲", "属于", "乙")]
    assert "kg: not read, for triples.jsonl is the graph: entities.csv\n" in caplog.text


def test_a_draft_gives_no_name_twice(tmp_path):
    (tmp_path / "t.json").write_text('[{"name": "感冒", "info": {"价": "1", "药": "甲"}, "价": "2", "药": ["乙", "丙"]}]', "utf-8")
    made = run(tmp_path, tmp_path / "t.json")
    assert attributes(made) == [("感冒", "info.价", "1"), ("感冒", "info.药", "甲"), ("感冒", "价", "2")]
    assert triples(made) == [("感冒", "药", "乙"), ("感冒", "药", "丙")]


def test_gephis_label_of_an_edge_is_its_relation(tmp_path):
    (tmp_path / "t.graphml").write_text('<graphml><key attr.name="Edge Label" id="l" for="edge"/><graph><node id="甲"/><node id="乙"/>'
                                        '<edge source="甲" target="乙"><data key="l">属于</data></edge></graph></graphml>', "utf-8")
    assert triples(run(tmp_path, tmp_path / "t.graphml")) == [("甲", "属于", "乙")]


def test_spreadsheet_cells_become_the_text_that_people_see(tmp_path):
    write_xlsx(tmp_path / "t.xlsx", {"一": [["head", "relation", "tail"], ["甲", "编码", "00123450"], ["甲", "价", 12.0], ["甲", "比", 0.95], [None, None, None],
                                            ["甲", "日", ("date", 44986)], ["甲", "时", ("date", 44986.5)], ["甲", "真", True]],
                                     "二": [["乙", "编码", "1E5"]]})
    made = run(tmp_path, tmp_path / "t.xlsx")
    assert [t for _, _, t in triples(made)] == ["00123450", "12", "0.95", "2023-03-01", "2023-03-01 12:00:00", "TRUE", "1E5"]


def test_percentages_and_padded_codes_are_read_as_a_spreadsheet_shows_them(tmp_path):
    numbers = [("percent", 0.0385), ("percent", 0.04), ("percent", 0.01005), ("percent", -0.5), ("whole", 0.985), ("code", 7), ("code", 123456), ("code", 7.5),
               ("money", 1234.5), 0.0385, 7, "0.0385", ("red", -0.0123), ("room", 0.5)]
    write_xlsx(tmp_path / "t.xlsx", {"空": [], "率": [["名称", "率"], *([f"甲{i}", number] for i, number in enumerate(numbers))], "二": [["名称", "率"], ["乙", ("code", 42)]]})
    made = run(tmp_path, tmp_path / "t.xlsx")
    assert [value for _, _, value in attributes(made)] == [
        "3.85%", "4.00%", "1.01%", "-50.00%", "99%", "00007", "123456", "7.5", "1234.5", "0.0385", "7", "0.0385", "-1.23%", "50.0%", "00042"]
    texts = [rows for _, rows in read_sheets(io.BytesIO((tmp_path / "t.xlsx").read_bytes()), "t.xlsx")]      # as clean and lint read it
    assert texts[0][1] == (2, ["甲0", "3.85%"]) and texts[1] == [(1, ["名称", "率"]), (2, ["乙", "00042"])]


def test_a_value_merged_over_rows_is_that_of_each_and_a_title_of_none(tmp_path):
    write_xlsx(tmp_path / "t.xlsx", {"表": [["名称", "类型", "年限", "备注"], ["甲", "消费贷款", ("code", 3), "同左"], ["乙", None, None, None], ["丙", None, "5", None],
                                            [None, None, None, None], ["丁", "经营贷款", "1", None]]}, merged=["B2:B5", "C2:C3", "D2:E3", "H2:H4", "A9:A11"])
    made = run(tmp_path, tmp_path / "t.xlsx")
    assert [(e["name"], e["type"]) for e in lines(made, "entities")] == [("甲", "消费贷款"), ("乙", "消费贷款"), ("丙", "消费贷款"), ("丁", "经营贷款")]
    assert attributes(made) == [("甲", "年限", "00003"), ("甲", "备注", "同左"), ("乙", "年限", "00003"), ("乙", "备注", "同左"), ("丙", "年限", "5"), ("丁", "年限", "1")]
    write_xlsx(tmp_path / "units.xlsx", {"表": [["名称", "利率", "额度", "期限"], [None, "%", "万元", "年"], ["甲", 3, 5, 1]]}, merged=["A1:A2"])
    with pytest.raises(DataError, match=r"units.xlsx\[表\]:2: an entity has no name"):
        run(tmp_path, tmp_path / "units.xlsx", name="units")
    for number, header in enumerate((["名称", "电话", "地址"], ["名称", "电话", "地址", "时间"])):
        path = tmp_path / f"title{number}.xlsx"
        write_xlsx(path, {"表": [["某行网点一览", *[None] * (len(header) - 1)], header, [f"甲{i}" for i in header]]}, merged=[f"A1:{'CD'[number]}1"])
        with pytest.raises(DataError, match=r"\.xlsx\[表\]:2: has several cells, the first row only '某行网点一览': expected a header there. Take out a title"):
            run(tmp_path, path, name=f"title{number}")
        assert not (tmp_path / f"title{number}").exists()


def test_entities_that_nothing_is_said_of_stay_and_nodes_of_one_name_are_one(tmp_path):
    rows = [{"type": "node", "id": str(i), "labels": ["人"], "properties": {"name": n}} for i, n in enumerate("甲乙乙丙")]
    rows += [{"type": "relationship", "id": "0", "label": "认识", "properties": {"since": 1999}, "start": {"id": "0"}, "end": {"id": "2"}}]
    (tmp_path / "g.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    made = run(tmp_path, tmp_path / "g.jsonl")
    assert [e["name"] for e in lines(made, "entities")] == ["甲", "乙", "丙"] and triples(made) == [("甲", "认识", "乙")]
    found = report(made)["hygiene"]
    assert (found["shared_name"], found["edge_property"], report(made)["statistics"]["degrees"]["without"]) == (1, 1, 1)


def test_typed_literals_of_ntriples_keep_their_zeros(tmp_path):
    pytest.importorskip("rdflib")
    (tmp_path / "t.nt").write_text('\n'.join(f'<http://e.org/甲> <http://e.org/{r}> {v} .' for r, v in (
        ("有", "<http://e.org/%E4%B9%99>"), ("号", '"007"^^<http://www.w3.org/2001/XMLSchema#integer>'), ("价", '"1.50"^^<http://www.w3.org/2001/XMLSchema#decimal>'))), "utf-8")
    made = run(tmp_path, tmp_path / "t.nt")
    assert triples(made) == [("甲", "有", "乙")] and attributes(made) == [("甲", "号", "007"), ("甲", "价", "1.50")]


def test_attributes_alone_are_a_graph_and_a_wrapped_list_is_one(tmp_path):
    (tmp_path / "t.json").write_text('{"data": [{"name": "甲", "编码": "007"}, {"name": "乙", "编码": "008"}]}', "utf-8")
    made = run(tmp_path, tmp_path / "t.json")
    assert attributes(made) == [("甲", "编码", "007"), ("乙", "编码", "008")] and triples(made) == []
    assert made.manifest["metrics"] == {"entities": 2, "triples": 0, "relations": 0, "facts": 0, "attributes": 2}


def test_blank_nodes_of_turtle_are_refused_by_name_and_equal_in_every_run(tmp_path):
    pytest.importorskip("rdflib")
    (tmp_path / "t.ttl").write_text('@prefix : <http://e.org/> . :甲 :有 :乙, [ :量 "3" ] ; :号 "07"^^<http://www.w3.org/2001/XMLSchema#integer> .', "utf-8")
    made = run(tmp_path, tmp_path / "t.ttl")
    assert triples(made) == [("甲", "有", "乙")] and attributes(made) == [("甲", "号", "07")]
    assert made.manifest["counts"] == {"in": 4, "kept": 2, "dropped": {"blank_node": 2}}
    assert {row["text"] for row in lines(made, "dropped")} == {"http://e.org/甲 http://e.org/有 _", "_ http://e.org/量 3"}
    assert run(tmp_path, tmp_path / "t.ttl", name="again").digest == made.digest


@pytest.mark.parametrize(("name", "text", "message"), [
    ("t.csv", "名称,用药,宜吃,编码\n感冒,甲,乙\n", r"t.csv:2: expected 4 cells, found 3"),
    ("t.csv", "名称,用药,用药,编码\n感冒,甲,乙,丙\n", r"t.csv:1: the header names '用药' twice"),
    ("t.csv", "名称,用药,宜吃,编码,厂家\n感冒,甲,乙,1,2\n", r"t.csv:2: field '厂家' is no relation, attribute or alias"),
    ("t.csv", "名称,用药,宜吃,编码\n,甲,乙,1\n", r"t.csv:2: an entity has no name: none of 名称 holds a text"),
    ("t.csv", "名称;用药;宜吃\n感冒;甲;乙\n", r"t.csv:2: an entity has no name: none of 名称 holds a text; .* of 名称;用药;宜吃"),
    ("t.csv", "名称,用药,宜吃,编码\n", r"t.csv: holds a header and no row"),
    ("t.csv", ":ID,名称\n1,甲\n1,乙\n", r"t.csv:3: the node '1' is there already, from .*t.csv:2"),
    ("t.csv", ":START_ID,:END_ID,:TYPE\n1,2,用药\n", r"t.csv: relationships without nodes"),
    ("t.json", '[{"名称": "甲"}, {"名称": "乙", "名称": "丙"}]', r"t.json: not valid JSON \(an object has the key '名称' twice\)"),
    ("t.json", '[{"名称": "甲"},\n 5 6]', r"t.json:2: not valid JSON"),
    ("t.json", '[{"名称": "甲"}, 5]', r"t.json:2: expected one object an entity, found str"),
    ("t.json", '[["甲","用药","乙"], ["甲","用药"]]', r"t.json:2: expected a triple as the others are"),
    ("t.jsonl", '{"type":"node","id":"1","properties":{"名称":"甲"}}\n{"type":"edge"}', r't.jsonl:2: expected an object whose "type" is node or'),
    ("t.jsonl", '{"type":"node","id":"1","properties":{"名称":"甲"}}\n{"type":"relationship","label":"用药","start":{"id":"1"},"end":{"id":"9"}}',
     r"t.jsonl:2: the edge ends at the node '9', which is not there"),
    ("t.jsonl", '{"名称":"甲"}\n\n{"名称":"乙", "厂家":"丙"}', r"t.jsonl:3: field '厂家' is no relation"),
    ("t.spo", "感冒\t用药\t甲\n感冒\t用药\n", r"t.spo:2: expected 3 cells, found 2"),
    ("t.graphml", '<graphml><graph>\n<node id="a"/><edge source="a" target="a"/></graph></graphml>', r"t.graphml:2: an edge has no relation"),
    ("t.graphml", '<!DOCTYPE x [<!ENTITY a "b">]>\n<graphml/>', r"t.graphml:1: has a document type"),
    ("t.graphml", "<graphml><graph>\n", r"t.graphml:\d: is not valid XML"),
    ("t.nt", "<http://e/a> <http://e/用药> <http://e/b> .\n<http://e/a> nonsense\n", r"t.nt:2: is no statement of N-Triples"),
    ("t.ttl", "<http://e/a> <http://e/用药> .\n", r"t.ttl:\d: is not valid Turtle"),
    ("t.xlsx", "no zip", r"t.xlsx: is no spreadsheet that can be read"),
    ("t.doc", "x", r"t.doc: a graph is read from .jsonl, .json, .csv, .tsv, .spo, .graphml, .nt, .ttl"),
])
def test_broken_data_is_refused_with_its_place_and_leaves_nothing(tmp_path, name, text, message):
    if name[-3:] in (".nt", "ttl"):
        pytest.importorskip("rdflib")
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(DataError, match=message):
        run(tmp_path, tmp_path / name, TOY | {"rows": {"name": "名称", "type": "病"}})
    assert not (tmp_path / "g").exists()


def test_a_table_with_another_delimiter_is_refused_in_words_of_the_table(tmp_path):
    (tmp_path / "t.csv").write_text("编号;名称\n1;安居贷\n", "utf-8")
    with pytest.raises(DataError, match=r"/t.csv: names entities \(the column 编号;名称\) and says nothing of them; between cells stands a comma in .csv"):
        run(tmp_path, tmp_path / "t.csv")
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(("change", "message"), [
    ({"rows": {"key": "名称"}}, "rows has an unknown key 'key'"), ({"rows": {"type": "虫"}}, "rows.type: '虫' is not declared in the ontology"),
    ({"attributes": {"率": {"kind": "float"}}}, "attributes.率.kind is one of text, number, percent, range, not 'float'"),
    ({"attributes": {"率": {"ask": ["{h}？"]}}}, "attributes.率: ask and say belong together"),
    ({"attributes": {"率": {"ask": ["{h}？"], "say": "{h}是{t}"}}}, "must hold {h} and {v} once"),
    ({"aliases": {"field": "x", "split": "["}}, r"aliases.split: '\[' is no regular expression"),
    ({"hygiene": {"cut": "no"}}, "hygiene.cut is drop or keep"), ({"attributes": {"率": {"field": "别名"}}}, "'别名' is claimed twice: by attribute 率 and by alias")])
def test_the_new_keys_of_an_ontology_are_read_strictly(tmp_path, change, message):
    write_triples(tmp_path / "a.csv", "utf-8", EDGES)
    with pytest.raises(DataError, match=f"g.yaml: .*{message}"):
        run(tmp_path, tmp_path / "a.csv", TOY | change)
    assert not (tmp_path / "g").exists()


def test_kinds_of_values():
    assert [kind_of([v]) for v in ("12", "1,200.5", "98%", "98.5 ％", "2-3周", "75%-85%", "3000――5000元", "约12", "007", "1e5")] == [
        "number", "number", "percent", "percent", "range", "range", "range", "text", "text", "text"]
    assert kind_of(["12", "98%"]) == kind_of([]) == "text" and is_kind("任何", "text")
