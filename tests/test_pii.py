"""Personal data: each kind by its own check or its name before it, and the look-alikes that are nobody's."""

from pathlib import Path

import pytest

from zhtune.corpus.encodings import decode
from zhtune.corpus.pii import MASKS, is_bank_card, is_resident_id, mask, personal, replace

SHIPPED = Path(__file__).resolve().parents[1] / "scripts" / "corpus" / "zh"
FOUND = {
    "resident_id": ["身份证号{11010519491231002X}。", "{１１０１０５１９４９１２３１００２Ｘ}", "身份证：{110105 19491231 002X}", "老身份证{130503670401001}", "公民身份号码是{11010519491231002x}，请核对"],
    "mobile_phone": ["电话{13812345678}", "请拨打{+86 138-1234-5678}", "手机：{１３８１２３４５６７８}", "2023 {13812345678}", "{13812345678}/{13912345678}", "{(+86)13812345678}",
                     "致电{8613812345678}", "{138 1234 5678}", "手机号为{13800138000}，谢谢", "王先生{13912345678}（微信同号）", "详见https://a.com/x，{13812345678}"],
    "bank_card": ["卡 {4111 1111 1111 1111}", "工行卡号：{6222020200112230012}", "请汇款到{6200000000000005}，户名张三"],
    "e_mail": ["联系邮箱{zhang.san@x.cn}", "邮箱：{ＺＳ＠ｅｘａｍｐｌｅ．ｃｏｍ}", "发到{a_b-c@mail.sub.edu.cn}。"],
    "landline": ["电话：{010-88888888}", "座机{（0755）86543210}", "联系电话 {021 62345678}", "Tel: {(021)5555-6666}", "电话 {0571 8888 6666}"],
    "account": ["加微信{abc123456}", "微信号：{zhangsanfeng}", "QQ：{123456789}", "vx: {wxid_abc123}", "QQ群 {87654321}", "扣扣是{1234567}", "微信ID＝{lisi_2020}"],
    "plate": ["车牌{京A12345}", "{粤B·D12345}", "{沪A-88888}", "{湘AD12345}（新能源）", "{鲁B1234学}"],
    "passport": ["护照号{E12345678}", "护照：{EA1234567}", "港澳通行证{C12345678}", "passport: {G12345678}", "台胞证号码{12345678}"],
    "address": ["家住{北京市海淀区中关村大街27号院3号楼2单元501室}", "{上海市浦东新区张杨路500弄12号301室}", "收货地址：{广东省深圳市南山区科技园路8号}", "{阳光花园3号楼2单元501室}",
                "住在{幸福小区12栋301}", "现住址为{朝阳区建国路八十八号}",
                "老家{河南省南阳市卧龙区七一路112号院1号楼3单元602}"],
    "record_number": ["病历号：{00123456}", "住院号 {ZY20230101}", "门诊号为{88776655}", "医保卡号：{A12345678}", "MRN: {0012345}"],
}
NOBODYS = ["订单号：13812345678", "https://x.com/?phone=13812345678", "版本 1.13812345678", "ts=416612345678901234", "编号20231381234567890。", "第10.1.2.3节", "log-13812345678-01",
           "https://flickr.com/photos/13912345678", "ISBN 9787111213826", "微信WeChat是一款应用", "微信支付", "QQ2012正式版", "QQ browser", "粤B2-20090059", "京ICP证030173号", "京ICP备12345678号",
           "抵京G1234次", "沪A股", "人民路12号公交站", "中山路5号线", "2023-12-31 13:45:00", "圆周率3.14159265358979", "0.13812345678", "快递单号 123456789012345678", "公里数12345678", "GB11643-1999",
           "护照办理需要15个工作日", "病历号要填写清楚", "住院3天，门诊2次", "user@localhost", "scp -pr . user@host.dom:/dest", "@微博用户", "TSO 4111111111111111", "tso: 6200000000000005", "2号楼3单元施工", "commit 4111111111111111",
           "型号SM-G9350", "身份证110105194912310021", "新K1234", "共计13800138000元整", "GB/T 13812345678", "第13812345678号提案", "全长138 1234 5678毫米", "川F15战机", "热线400-800-1234", "时间戳1699999999999", "住院部 3 号楼 201 室", "装饰器@property", "电话会议010", "急诊科在3号楼2层", "注射用青霉素钠80万单位"]


@pytest.mark.parametrize("name", FOUND)
def test_each_kind_is_found_at_its_place(name):
    for marked in FOUND[name]:
        text = marked.replace("{", "").replace("}", "")
        found = list(personal(text))
        pieces = [piece.split("}")[0] for piece in marked.split("{")[1:]]
        assert [(find.name, text[find.start:find.end]) for find in found] == [(name, piece) for piece in pieces], marked
        assert replace(text, found) == "".join(MASKS[name] + part.split("}")[1] if "}" in part else part for part in marked.split("{"))


@pytest.mark.parametrize("text", NOBODYS)
def test_look_alikes_are_nobodys(text):
    assert [(find.name, text[find.start:find.end]) for find in personal(text)] == []


def test_laws_and_books_hold_no_personal_data():
    for path in sorted(SHIPPED.glob("*")):
        text = decode(path.read_bytes())[0]
        assert [(path.name, find.name, text[find.start - 10:find.end + 5]) for find in personal(text)] == []


def test_checks_and_masks():
    assert is_resident_id("11010519491231002X") and not is_resident_id("11010519491331002X") and not is_resident_id("99010519491231002X")
    assert is_bank_card("6200000000000005") and not is_bank_card("6200000000000006")
    assert mask("邮箱a.b@c.cn，手机13812345678", "e_mail") == "邮箱【邮箱】，手机13812345678"
    text = "张三，身份证11010519491231002X，住址：北京市海淀区中关村大街27号，车牌京A12345。"
    assert replace(text, list(personal(text))) == "张三，身份证【身份证号】，住址：【地址】，车牌【车牌号】。"
