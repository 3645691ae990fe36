"""Personal data in Chinese text: each kind with the check that its number itself allows, or with the words around it.

    resident_id      GB 11643: birth date and ISO 7064 check character       mobile_phone   11 digits, 13 to 19, +86
    bank_card        issuer's prefix, length and Luhn digit                  landline       area code, and a word like 电话 before it
    e_mail           an address whose domain has a letter suffix             account        微信, QQ and their like, named before it
    plate            province, letter, 5 or 6 signs (GA 36)                  passport       named before it: 护照, 通行证
    address          street and door number                                  record_number  named before it: 病历号, 住院号, 医保卡号

Full-width digits and letters count as their half-width twins; spans are offsets in the text as given. What stands in a URL,
goes on in letters or digits, or is named as something else (订单号, ts=, 版本) is left alone. Names are not looked for.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from zhtune.text import HAN, URL

MASKS = {"resident_id": "【身份证号】", "bank_card": "【银行卡号】", "mobile_phone": "【手机号】", "e_mail": "【邮箱】", "landline": "【电话】",
         "account": "【账号】", "plate": "【车牌号】", "passport": "【证件号】", "address": "【地址】", "record_number": "【病历号】"}
# Full-width ASCII one to one, so that offsets stay; of a text that has full-width digits, letters or ＠ only, for speed.
_HALF = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)}
_FULL = re.compile("[０-９Ａ-Ｚａ-ｚ＠]")
_DIGITS = re.compile(r"[0-9(（+][0-9 ()（）+–—－-]{5,28}[0-9Xx]")              # where it is worth to look closely
_NUMBER = re.compile(r"(?<![\dA-Za-z_.@])(?<![\dA-Za-z]-)(?<![A-Za-z_]=)(?<![A-Za-z]/)(?:[(（]?\+?86[)）]?[ -]?)?"
                     r"(?P<digits>1[3-9]\d([ -])\d{4}\2\d{4}|\d{4}(?:([ -])\d{4})(?:\3\d{4}){1,2}(?:\3\d{1,3})?|\d{6}([ -])\d{8}\4\d{3}[\dXx]"
                     r"|[(（]0\d{2,3}[)）][ ]?\d{3,4}[ -]?\d{4}|0\d{2,3}[ –—－-]\d{3,4}[ -]?\d{4}|\d{7,21}[Xx]?)(?![\dA-Za-z_@]|[.-][\dA-Za-z])")
_HOST = re.compile(r"@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?![A-Za-z]|:[/~])")   # user@host:/path is a place on a machine
_LOCAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]*$")
_IS = r"[ ]{0,2}(?:号码|号|账号|帐号|ID|id)?[ ]{0,2}(?:是|为|[:：=＝])?[ ]{0,2}"
_ACCOUNT = re.compile(r"(?:微信|威信|薇信|扣扣|抖音|支付宝|(?<![A-Za-z])(?:[Ww]e[Cc]hat|WX|wx|VX|vx|[Vv]信|QQ|qq))群?"
                      r"(?P<said>[ ]{0,2}(?:号码|号|账号|帐号|ID|id)?[ ]{0,2}(?:是|为|[:：=＝])?)[ ]{0,2}"
                      r"(?P<value>[A-Za-z][A-Za-z0-9_-]{5,19}|[1-9]\d{4,10})(?![A-Za-z0-9_@]|\.[A-Za-z0-9])")
_ACCOUNTS = ("信", "QQ", "qq", "扣扣", "抖音", "支付宝", "WX", "wx", "VX", "vx", "Chat", "chat")
_PASSPORT = re.compile(rf"(?:护照|[Pp]assport|通行证|台胞证|回乡证){_IS}(?P<value>[A-Z]{{0,2}}\d{{7,9}})(?![A-Za-z0-9])")
_RECORD = re.compile("(?:病历|病案|住院|门诊|就诊卡?|诊疗卡|医保卡?|社保卡|检查|影像|标本|病理|MRN)(?:号码|号|编号|[ ]?[:：=])"
                     r"[ ]{0,2}(?:是|为|[:：=＝])?[ ]{0,2}(?P<value>(?=[A-Z-]{0,4}\d)[A-Z0-9][A-Z0-9-]{3,17})(?![A-Za-z0-9年月])")
_PLATE = re.compile("[A-HJ-NP-Z](?<=[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼].)[ ·•.-]?(?=[A-Z]{0,3}[0-9][A-Z0-9]*[0-9])"
                    "(?:[A-HJ-NP-Z0-9]{4}[A-HJ-NP-Z0-9挂学警港澳]|[A-K][A-HJ-NP-Z0-9][0-9]{4}|[0-9]{5}[A-K])(?![A-Za-z0-9])")
_NO = r"(?:\d{1,5}|[一二三四五六七八九十百]{1,5})"
_ROOM = rf"(?:{_NO}单元[ ]?)?(?:{_NO}[层楼][ ]?)?{_NO}(?:室|户|号房|房)"
_FLAT = rf"{_NO}(?:号楼|栋|幢|座)[ ]?(?:{_ROOM}|{_NO}单元{_NO}|{_NO}(?![\d人层元]))"
# From the name's last character on, for speed; `_finds` looks where it begins.
_STREET = re.compile(rf"[路街道巷弄同里村](?P<door>{_NO}[号弄](?:院|{_NO}号)?[ ]?)(?P<room>{_FLAT}|{_ROOM})?")
_ESTATE = re.compile(rf"[区园村寓苑庭城府湾](?:(?<=小区)|(?<=新村)|(?<=[园寓苑庭城府湾]))[{HAN}]{{0,4}}(?P<room>{_FLAT})")
_LIVES = re.compile("住址|地址|家住|住在|住于|居住|户籍|收货|收件|寄到|寄往|现住|家庭")
_BEGINS = re.compile(r"住址|地址|家住|住在|住于|居住在?|位于|户籍|老家|寄到|寄往|送到|现住|[在到至是为于]|[^\w]")
# What a number is called that is nobody's: looked for just before it.
_OTHER = re.compile("(?:订单|单|流水|编|运单|快递|货|批|发票|合同|案|文|书|刊|期|学|工|型|序列|版本|任务|事务|交易|备案|证书|注册|许可|专利|条|商品)"
                    "(?:号码?|码)[是为 :：=#]{0,3}$|(?<![A-Za-z])(?:ts|tso|id|uid|seq|time|token|key|hash|version|isbn|issn|gb|gb/t|doi|no"
                    r"|版本|编码|代码)[ :：=\"'#.]{0,4}$", re.IGNORECASE)
_UNIT = re.compile("[ ]?(?:元|万|亿|号[^码]|毫米|厘米|公里|吨|%|％|字节)")
_BANK = re.compile("卡|银行|账号|帐号|账户|帐户|户名|开户|打款|汇款|转账|收款|[Cc]ard")
_CALL = re.compile(r"(?:电话|座机|固话|致电|拨打|热线|传真|联系|[Tt]el|TEL|[Pp]hone)[^\d。；\n]{0,8}$")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK = "10X98765432"
_BEFORE, _AFTER, _NAME = 24, 12, 30                         # characters around a number that may name it; of an address before its street ends


@dataclass(frozen=True)
class Find:
    """One piece of personal data."""

    name: str
    start: int
    end: int
    masked: str
    """The find as a report may show it: its first two and last two characters"""


def personal(text: str) -> Iterator[Find]:
    """Yield the personal data in a text, from left to right; no two overlap."""
    half = text.translate(_HALF) if _FULL.search(text) else text
    urls = [found.span() for found in URL.finditer(text)] if "://" in text or "www." in text else []
    end = 0
    for start, stop, name in sorted(_finds(half), key=lambda find: (find[0], -find[1])):
        if start >= end and not any(start < last and stop > first for first, last in urls):
            end = stop
            yield Find(name, start, stop, f"{text[start:start + 2]}…{text[stop - 2:stop]}")


def mask(text: str, name: str) -> str:
    """The text with the finds of one name replaced by what they are, such as 【手机号】."""
    return replace(text, [find for find in personal(text) if find.name == name])


def replace(text: str, finds: list[Find]) -> str:
    """The text with its finds replaced by what they are."""
    for find in reversed(finds):
        text = text[:find.start] + MASKS[find.name] + text[find.end:]
    return text


def _finds(half: str) -> Iterator[tuple[int, int, str]]:
    for found in (found for place in _DIGITS.finditer(half) for found in _NUMBER.finditer(half, place.start(), place.end() + 2)):
        if name := _number_name(found["digits"], half[max(0, found.start() - _BEFORE):found.start()], half[found.end():found.end() + _AFTER]):
            yield (*found.span(), name)
    for found in _HOST.finditer(half) if "@" in half else ():
        if local := _LOCAL.search(half[max(0, found.start() - 64):found.start()]):
            yield found.start() - len(local[0]), found.end(), "e_mail"
    for found in _ACCOUNT.finditer(half) if any(word in half for word in _ACCOUNTS) else ():
        # 微信WeChat, QQ browser: without 号 or a colon only what has a digit
        if found["said"].strip() or not found["value"].isalpha():
            yield (*found.span("value"), "account")
    for name, pattern in (("passport", _PASSPORT), ("record_number", _RECORD)):
        yield from ((*found.span("value"), name) for found in pattern.finditer(half))
    yield from ((found.start() - 1, found.end(), "plate") for found in _PLATE.finditer(half))
    for found in chain(_STREET.finditer(half), _ESTATE.finditer(half)):
        before = half[max(0, found.start() - _NAME):found.start()]
        if found["room"] or _LIVES.search(before):
            begins = [mark.end() for mark in _BEGINS.finditer(before)]
            yield found.start() - len(before) + max(begins, default=0), found.end(), "address"


def _number_name(number: str, before: str, after: str) -> str | None:
    """What a number is, by its own digits first; None if it is nobody's."""
    digits = re.sub("[ ()（）–—－-]", "", number).upper()
    if is_resident_id(digits) or (len(digits) == 15 and "身份证" in before and _is_date(f"19{digits[6:12]}")):
        return "resident_id"
    if _OTHER.search(before):
        return None
    if re.fullmatch(r"1[3-9]\d{9}", digits) and not _UNIT.match(after):
        return "mobile_phone"
    if digits.isdecimal() and is_bank_card(digits) and (_BANK.search(before + after) or " " in number or "-" in number):
        return "bank_card"
    return "landline" if re.fullmatch(r"0\d{2,3}[2-9]\d{6,7}", digits) and _CALL.search(before) else None


def is_resident_id(number: str) -> bool:
    """Whether 18 characters are a resident identity number: region, birth date and check character are right."""
    number = number.upper()
    if not re.fullmatch(r"(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3])\d{15}[\dX]", number) or not _is_date(number[6:14]):
        return False
    return _CHECK[sum(int(d) * w for d, w in zip(number[:17], _WEIGHTS, strict=True)) % 11] == number[17]


def _is_date(digits: str) -> bool:
    try:
        return 1850 < datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year < 2100
    except ValueError:
        return False


def is_bank_card(number: str) -> bool:
    """Whether a number has an issuer's prefix, its length and a right Luhn digit (UnionPay, Visa, Mastercard, JCB, Amex)."""
    digits = [int(c) for c in number if c not in " -"]
    first = "".join(map(str, digits[:2]))
    lengths = (16, 17, 18, 19) if first == "62" else (15,) if first in ("34", "37") else (16,)
    if len(digits) not in lengths or not (first in ("62", "34", "35", "37") or first[0] == "4" or "51" <= first <= "55"):
        return False
    doubled = [d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0
