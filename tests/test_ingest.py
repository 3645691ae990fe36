"""Reading: formats, packing, encodings; what is broken is refused with its place and the rest goes on; what is cut says so."""

import gzip
import io
import json
import logging
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_kg_formats import write_xlsx

from zhtune.corpus.encodings import decode, sniff
from zhtune.corpus.html_text import html_text, strip_markup
from zhtune.corpus.read import read_files
from zhtune.corpus.tabular import Refusal
from zhtune.errors import ConfigError
from zhtune.records import Document
from zhtune.stages.clean import CleanConfig, clean

SHIPPED = Path(__file__).resolve().parents[1] / "scripts" / "corpus" / "zh"
TEXTS = [f"第{i}条　本院门诊时间为上午八点至十一点，请携带病历本；挂号费{i}元。" for i in range(60)]
TRADITIONAL = "資訊安全管理辦法：各機關應設專責人員，每年至少辦理一次風險評鑑，並將結果送主管機關備查。遇有資安事件，應於一小時內通報。"


def packed(path, data):
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)


def read(path, *fields):
    """(ids and texts of the documents, (where, reason) of the refusals)"""
    items = list(read_files([path], fields))
    return [(d.id, d.text) for d in items if isinstance(d, Document)], [(r.where, r.reason) for r in items if isinstance(r, Refusal)]


def jsonl(texts):
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


def csv_bytes(texts):
    return "编号,text\r\n".encode() + "".join(f'{i},"{text}"\r\n' for i, text in enumerate(texts)).encode()


def write_docx(path):
    docx = pytest.importorskip("docx")
    document = docx.Document()
    document.add_paragraph("门诊须知")
    table = document.add_table(rows=2, cols=4)
    for row, texts in zip(table.rows, (("科室", "内科", "内科", ""), ("电话", "", "", "甲")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    table.rows[1].cells[1].merge(table.rows[1].cells[2])
    document.add_paragraph("请带病历本。")
    document.save(path)


def pdf_bytes(pages):
    """A PDF of text pages, by hand: a font of no glyphs whose codes are UTF-16, as Chinese PDFs have."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Count {len(pages)}/Kids[{' '.join(f'{5 + 2 * i} 0 R' for i in range(len(pages)))}]>>".encode(),
               b"<</Type/Font/Subtype/Type0/BaseFont/S/Encoding/UniGB-UTF16-H/DescendantFonts[4 0 R]>>",
               b"<</Type/Font/Subtype/CIDFontType0/BaseFont/S/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)/Supplement 5>>/DW 1000>>"]
    for i, lines in enumerate(pages):
        shown = "".join(f"1 0 0 1 50 {750 - 20 * n} Tm <{line.encode('utf-16-be').hex()}> Tj\n" for n, line in enumerate(lines))
        stream = f"BT /F 12 Tf\n{shown}ET".encode() if lines else b""
        objects += [f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>/Contents {6 + 2 * i} 0 R>>".encode(),
                    b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream)]
    out, places = io.BytesIO(b"%PDF-1.4\n"), []
    out.seek(0, 2)
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + b"".join(b"%010d 00000 n \n" % p for p in places))
    out.write(b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start))
    return out.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "big5hkscs", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_are_known_by_their_bytes(encoding):
    text = (TRADITIONAL + "嘅㗎") if encoding == "big5hkscs" else "第一条　为了保障食品安全，保护公众身体健康，制定本法。㐂𠀀" if encoding == "gb18030" else "门诊：8点\n住院：全天"
    assert decode(text.encode(encoding)) == (text, encoding.removesuffix("-sig"))


def test_forty_bytes_tell_the_encoding_and_a_cut_character_hides_nothing():
    rng, right = random.Random(0), {}
    simplified = (SHIPPED / "luxun_nahan.txt").read_text("utf-8")
    for encoding, text in (("gb18030", simplified), ("utf-8", simplified), ("big5hkscs", TRADITIONAL * 3), ("gb18030", TRADITIONAL * 3)):
        for _ in range(100):
            at = rng.randrange(len(text) - 60)
            head = text[at:].encode(encoding, "ignore")[:41]
            if not head.isascii() and len(head) == 41 and len(text[at:at + 30].strip()) > 20:
                right.setdefault(encoding, []).append(sniff(head) == encoding)
    assert {encoding: sum(found) / len(found) for encoding, found in right.items()} == {"gb18030": 1.0, "utf-8": 1.0, "big5hkscs": 1.0}
    assert sum(map(len, right.values())) > 250


def test_bytes_of_no_encoding_and_broken_lines(tmp_path):
    assert decode(b"\x81\xff\xff") is None and decode(b"") == ("", "utf-8")
    good = TEXTS[0].encode()
    (tmp_path / "a.txt").write_bytes(good + b"\n\xff\xfe\xfd\n" + good + b"\n" + good + b"\r\nlast\xe4\xb8")
    documents, refused = read(tmp_path / "a.txt")
    assert documents == [("a.txt", f"{TEXTS[0]}\n{TEXTS[0]}\n{TEXTS[0]}\nlast")] and refused == [("a.txt:2", "undecodable"), ("a.txt:5", "truncated")]
    (tmp_path / "b.jsonl").write_bytes(jsonl(TEXTS[:3]) + b'{"text": "\xff"}\n{"text": 1}\n[1]\n{"text": "a\xe2\x80\xa8b"}\n')
    documents, refused = read(tmp_path / "b.jsonl")
    assert [d[0] for d in documents] == ["b.jsonl:1", "b.jsonl:2", "b.jsonl:3", "b.jsonl:7"] and documents[-1][1] == "a\u2028b"
    assert refused == [("b.jsonl:4", "undecodable"), ("b.jsonl:5", "no_text_field"), ("b.jsonl:6", "no_text_field")]


def test_json_in_its_forms(tmp_path):
    rows = [{"text": text} for text in TEXTS[:3]]
    for name, content in (("list", json.dumps(rows)), ("data", json.dumps({"version": 1, "data": rows})), ("strings", json.dumps(TEXTS[:3])), ("lines", jsonl(TEXTS[:3]).decode()),
                          ("indented", json.dumps(rows, indent=2)), ("two lists", json.dumps({"train": rows, "test": []})), ("one after the other", "\n".join(json.dumps(row, indent=1) for row in rows))):
        (tmp_path / f"{name}.json").write_text(content, "utf-8")
        assert read(tmp_path / f"{name}.json") == ([(f"{name}.json:{i}", text) for i, text in enumerate(TEXTS[:3], 1)], []), name
        (tmp_path / f"{name}.jsonl").write_text(content, "utf-8")       # the suffix decides only of one object in one line
        assert name in ("data", "two lists") or read(tmp_path / f"{name}.jsonl") == ([(f"{name}.jsonl:{i}", text) for i, text in enumerate(TEXTS[:3], 1)], []), name
    (tmp_path / "nan.jsonl").write_text('{"text": "甲", "score": NaN}\n{"text": "乙", "n": 99999999999999999999}\n"丙"\n', "utf-8")
    assert read(tmp_path / "nan.jsonl") == ([("nan.jsonl:1", "甲"), ("nan.jsonl:2", "乙"), ("nan.jsonl:3", "丙")], [])
    broken = json.dumps(rows, indent=2, ensure_ascii=False).replace(f'"{TEXTS[1]}"', f'"{TEXTS[1]}')
    (tmp_path / "broken.json").write_text(broken, "utf-8")
    assert read(tmp_path / "broken.json") == ([("broken.json:1", TEXTS[0]), ("broken.json:3", TEXTS[2])], [("broken.json:2", "bad_json")])
    (tmp_path / "half.json").write_text('[{"text": "\\ud800"}, {"text": "好"}]', "utf-8")
    assert read(tmp_path / "half.json") == ([("half.json:2", "好")], [("half.json:1", "bad_json")])
    poems = [{"正文": ["床前明月光", "疑是地上霜"]}, {"正文": ["举头望明月", "低头思故乡"]}]
    whole = [("\n".join(poem["正文"])) for poem in poems]
    for name, content in (("commas.jsonl", ",\n".join(json.dumps(poem) for poem in poems) + ",\n"), ("mixed.json", '{"text": "床前明月光\\n疑是地上霜"}\n' + json.dumps(poems[1], indent=1)),
                          ("pretty.jsonl", "\n".join(json.dumps(poem, indent=1) for poem in poems)), ("front.jsonl", f"[{json.dumps(poems[0])}\n,{json.dumps(poems[1])}]")):
        (tmp_path / name).write_text(content, "utf-8")
        assert [d[1] for d in read(tmp_path / name, "正文", "text")[0]] == whole, name
    for name, content, documents, reasons in (
            ("first.json", '{"正文": ["a" "b"]}\n{"正文": ["c"]}\n', ["c"], ["bad_json"]),
            ("two.json", '{"train": [{"text": "a"},\n {"text": "b"}],\n "test": [{"text": "c"}]', ["a", "b"], ["bad_json"]),
            ("key.json", '{"version": 1,\n"data": [\n{"text": "a"},\n{"text" "b"},\n{"text": "c"}\n]}', ["a", "c"], ["bad_json"]),
            ("end.json", '{"version": 1, "data": [{"text": "a"},\n {"text": "b"},\n {"text": "c', ["a", "b"], ["bad_json"]),
            ("half.jsonl", '{"text": "a"}\n{"\\ud800": 1}\n', ["a"], ["no_text_field"]),
            ("lists.json", '{"data": [[1, 2]], "items": ["a"]}', [], ["no_text_field"]),
            ("header.csv", '"text,n\n甲,1\n乙,2\n', [], ["bad_header"])):
        (tmp_path / name).write_text(content, "utf-8")
        found, refused = read(tmp_path / name)
        assert ([d[1] for d in found], [reason for _, reason in refused]) == (documents, reasons), name
    pq.write_table(pa.table({"text": pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))}), tmp_path / "bytes.parquet")
    assert read(tmp_path / "bytes.parquet") == ([], [("bytes.parquet:1", "unreadable")])
    (tmp_path / "late.txt").write_bytes(b"a" * 70_000 + b"\n" + TEXTS[0].encode("gb18030"))
    assert read(tmp_path / "late.txt")[0][0][1].endswith(TEXTS[0])
    (tmp_path / "poem.json").write_text(json.dumps([{"paragraphs": ["床前明月光，", "疑是地上霜。"], "title": "静夜思", "n": [1]}]), "utf-8")
    assert read(tmp_path / "poem.json", "title", "paragraphs", "n") == ([("poem.json:1", "静夜思\n床前明月光，\n疑是地上霜。")], [])


def test_tables(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufeff问;答\r\n\"几点，\r\n开门\";八点\r\n\r\n散;一;行\r\n挂号；;九点".encode("utf-8"))
    assert read(tmp_path / "a.csv", "问", "答") == ([("a.csv:2", "几点，\n开门\n八点"), ("a.csv:6", "挂号；\n九点")], [("a.csv:5", "ragged_row")])
    (tmp_path / "b.tsv").write_bytes("text\tn\r007\t1\r\"x\"y\t2\rNA\t3\r".encode("utf-16"))
    assert read(tmp_path / "b.tsv") == ([("b.tsv:2", "007"), ("b.tsv:4", "NA")], [("b.tsv:3", "bad_csv")])
    (tmp_path / "twice.csv").write_text("text,备注,备注\n甲,1,2\n", "utf-8")
    write_xlsx(tmp_path / "twice.xlsx", {"一": [["text", "text"], ["甲", "乙"]], "二": [["text"], ["丙"]]})
    assert read(tmp_path / "twice.csv") == ([], [("twice.csv:1", "bad_header")])
    assert read(tmp_path / "twice.xlsx") == ([("twice.xlsx[二]:2", "丙")], [("twice.xlsx[一]:1", "bad_header")])
    stray = "text,n\n" + "".join(f"{text},{i}\n" for i, text in enumerate(TEXTS))
    (tmp_path / "c.csv").write_text(stray.replace(TEXTS[30], '"' + TEXTS[30]), "utf-8")     # a quote that nobody closes
    documents, refused = read(tmp_path / "c.csv")
    assert [d[1] for d in documents] == TEXTS[:30] + TEXTS[31:] and refused == [("c.csv:32", "bad_csv")]
    write_xlsx(tmp_path / "d.xlsx", {"空": [], "甲": [["正文", "n"], ["门诊时间", 7], [None, None], ["住院部", 1]]})
    assert read(tmp_path / "d.xlsx") == ([("d.xlsx[甲]:2", "门诊时间"), ("d.xlsx[甲]:4", "住院部")], [])
    pq.write_table(pa.Table.from_pylist([{"content": "甲"}, {"content": None}]), tmp_path / "e.parquet")
    assert read(tmp_path / "e.parquet") == ([("e.parquet:1", "甲")], [("e.parquet:2", "no_text_field")])
    for name in ("f.xlsx", "g.parquet"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut")
        assert read(tmp_path / name) == ([], [(f"{name}:1", "unreadable")])


@pytest.mark.parametrize("kind", ["a.txt", "a.md", "a.jsonl", "a.csv", "a.html", "a.json"])
def test_packed_files_read_as_plain_ones(tmp_path, kind):
    data = {"txt": TEXTS[0].encode(), "md": TEXTS[0].encode(), "jsonl": jsonl(TEXTS), "csv": csv_bytes(TEXTS), "json": json.dumps(TEXTS).encode(),
            "html": f"<body><p>{TEXTS[0]}</p>".encode()}[kind[2:]]
    plain = tmp_path / kind
    packed(plain, data)
    for suffix in (".gz", ".zst"):
        packed(tmp_path / f"{kind}{suffix}", data)
        documents, refused = read(tmp_path / f"{kind}{suffix}")
        assert ([(id_.replace(suffix, ""), text) for id_, text in documents], refused) == read(plain) and documents


def test_word_and_pdf(tmp_path):
    write_docx(tmp_path / "a.docx")
    assert read(tmp_path / "a.docx") == ([("a.docx", "门诊须知\n科室\t内科\t内科\t\n电话\t \t甲\n请带病历本。")], [])
    (tmp_path / "b.docx").write_bytes((tmp_path / "a.docx").read_bytes()[:3000])
    assert read(tmp_path / "b.docx") == ([], [("b.docx", "unreadable")])
    pytest.importorskip("pypdf")
    pages = [["第一章　总则", "为了保障公众身体健康和生命安全，保证食品的安", "全，制定本法。", "从业人员应当每年体检。", "- 1 -"], ["第二页从这里开始，没有别的内容，只有这一行字。", "2"]]
    (tmp_path / "c.pdf").write_bytes(pdf_bytes(pages))
    text = "第一章　总则\n为了保障公众身体健康和生命安全，保证食品的安全，制定本法。\n从业人员应当每年体检。\n第二页从这里开始，没有别的内容，只有这一行字。"
    assert read(tmp_path / "c.pdf") == ([("c.pdf", text)], [])
    (tmp_path / "scan.pdf").write_bytes(pdf_bytes([[], []]))
    (tmp_path / "cut.pdf").write_bytes(pdf_bytes(pages)[:300])
    found = {r.where: (r.reason, r.detail) for name in ("scan.pdf", "cut.pdf") for r in read_files([tmp_path / name])}
    assert found["scan.pdf"] == ("scanned", "0 characters on 2 pages: a scan without a text layer; run OCR on it first") and found["cut.pdf"][0] in ("unreadable", "scanned")


def test_html_gives_what_a_reader_sees():
    page = """<!DOCTYPE html><html><head><title>门诊 须知</title><style>p{}</style><script>if (a<b) x("<p>")</script></head>
    <body><nav><a>首页</a><a>上一篇</a></nav><h1>门诊须知</h1><p>请带
    病历本，<b>空腹</b>抽血。Open at
    8 o'clock &amp; later.</p><!-- 隐藏 --><table><tr><th>科室</th><td>内科</td></tr></table><pre>a = 1
  b = 2</pre><ul><li>甲<li>乙</ul><footer>版权所有</footer></body></html>"""
    assert html_text(page) == ("门诊须知\n请带病历本，空腹抽血。Open at 8 o'clock & later.\n科室\t内科\na = 1\n  b = 2\n甲\n乙", "门诊 须知")
    assert html_text("<nav>导航<body><![if !IE]>正文<br/>二行<div hidden>三</div>")[0] == "正文\n二行\n三"
    assert strip_markup('甲<br>乙<font color="red">丙</font>&nbsp;丁\x1b[33m戊\x1b[m') == "甲\n乙丙 丁戊"
    for text in ("若 a < b 且 c > d", "#include <stdio.h>", "List<String> x", "AT&T，R&D", "见《<论语>新解》"):
        assert strip_markup(text) == text


def test_patterns_folders_and_names(tmp_path):
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
        packed(tmp_path / place / "a.txt.gz", (place + TEXTS[0] * 3).encode())
    (tmp_path / "x" / "b.bin").write_bytes(b"x")
    made = clean(CleanConfig(input=str(tmp_path / "*" / "*.txt.gz"), out=str(tmp_path / "o"), heldout=0))
    assert [r["id"] for r in pq.read_table(made.path / "part-00000.parquet").to_pylist()] == ["x/a.txt.gz", "y/a.txt.gz"]
    with pytest.raises(ConfigError, match="names no file"):
        clean(CleanConfig(input=str(tmp_path / "*.pdf"), out=str(tmp_path / "p")))
    with pytest.raises(ConfigError, match="--preset .* names 2 files; clean reads one there"):
        clean(CleanConfig(input=str(tmp_path / "x"), preset=str(tmp_path / "*" / "*.gz"), out=str(tmp_path / "p")))
    assert not (tmp_path / "p").exists()


CUTS = {"a.jsonl": jsonl(TEXTS), "a.csv": csv_bytes(TEXTS), "a.json": json.dumps([{"text": t} for t in TEXTS], ensure_ascii=False, indent=1).encode(),
        "b.json": json.dumps([{"text": t} for t in TEXTS]).encode()}


@pytest.mark.parametrize("kind", [*CUTS, "a.jsonl.gz", "a.csv.gz", "a.jsonl.zst"])
def test_a_cut_file_loses_at_most_the_record_it_was_cut_in_and_says_so(tmp_path, kind, caplog):
    plain = CUTS[kind.removesuffix(".gz").removesuffix(".zst")]
    packed(tmp_path / kind, plain)
    whole = (tmp_path / kind).read_bytes()
    rng = random.Random(kind)
    for at in sorted(rng.randrange(len(whole) // 10, len(whole) - 1) for _ in range(50)):
        (tmp_path / kind).write_bytes(whole[:at])
        caplog.clear()
        with caplog.at_level(logging.WARNING, "zhtune"):
            documents, refused = read(tmp_path / kind)
        texts = [text for _, text in documents]
        if kind == "a.csv" and texts and texts[-1] != TEXTS[len(texts) - 1]:    # cut within its last cell: kept, with a warning
            assert TEXTS[len(texts) - 1].startswith(texts.pop().rstrip("\r\n")) and "if the file was cut" in caplog.text
        assert texts == TEXTS[:len(texts)]                   # what is kept is whole
        given = plain[:at] if kind in CUTS else _given(whole[:at], kind)
        records = {".jsonl": given.count(b"\n"), ".csv": max(given.count(b"\r\n") - 1, 0), ".json": given.count(b"}")}[Path(kind.removesuffix(".gz").removesuffix(".zst")).suffix]
        assert len(texts) >= records
        at_a_border = kind in CUTS and (whole[:at].endswith((b"\n", b"\r")) or whole[:at].rstrip(b", \n").endswith((b"}", b"[")))
        assert at_a_border or refused or "if the file was cut" in caplog.text, (at, whole[:at][-40:])


def _given(data, kind):
    """What any reader can get out of a cut archive."""
    if kind.endswith(".gz"):
        import zlib
        return zlib.decompressobj(31).decompress(data)
    out, stream = b"", pa.CompressedInputStream(pa.BufferReader(data), "zstd")
    try:
        while block := stream.read(1 << 20):
            out += block
    except OSError:
        return out
    return out
