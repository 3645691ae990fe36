"""The problems that lint knows by name: what becomes of a row that has one, what it means and what to do about it.

    refuse   never kept: there is nothing in it to train on
    drop     reported; --fix drops the row
    repair   reported; --fix repairs the row
    keep     reported only: good data, for a person to know of
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one field of one row."""

    name: str
    field: str
    detail: str


@dataclass(frozen=True)
class Cure:
    """What becomes of a row with a problem, and what its name means."""

    cure: Literal["refuse", "drop", "repair", "keep"]
    chinese: str
    english: str


CURES = {
    # A row that could not be read.
    "bad_json": Cure("refuse", "这一行不是 JSON；改正它的引号、逗号或截断", "the line is no JSON: correct its quotes, commas or cut end"),
    "bad_csv": Cure("refuse", "引号不配对；字段里的引号要写两遍", "broken quoting: a quote within a cell is written twice"),
    "bad_header": Cure("refuse", "表头有同名的列，分不清用哪一列；或者表头本身坏了", "two columns of one name, or a broken header"),
    "several_lists": Cure("refuse", "一个文件里有几个数据列表；每个存成一个文件", "several lists of rows in one file: make a file of each"),
    "truncated": Cure("refuse", "文件在这里被截断", "the file is cut there"),
    "undecodable": Cure("refuse", "有不属于文件编码的字节；从来源重新导出", "bytes that are not of the file's encoding: export it again"),
    "unreadable": Cure("refuse", "文件损坏，或不是这种文件", "a damaged file, or one of another kind"),
    "not_an_object": Cure("refuse", "不是一个对象；每条应为 {…}", "no object: each row should be {…}"),
    "ragged_row": Cure("refuse", "单元格数与表头不符；多半是少了引号", "another number of cells than columns: mostly a missing quote"),
    "unknown_file": Cure("refuse", "不认识的文件类型；转成 JSON、CSV、xlsx 或 parquet", "a kind of file that is not read: convert it"),
    "unknown_keys": Cure("refuse", "字段名不属于任何已知格式；改名（见 docs/formats.md）", "keys of no known format: rename them (docs/formats.md)"),
    "unknown_role": Cure("refuse", "不认识的说话人；改为 user、assistant、system 或 tool", "an unknown speaker: use user, assistant, system or tool"),
    "not_text": Cure("refuse", "应为文本处不是文本", "something else stands where text should"),
    "bad_tools": Cure("refuse", "工具定义不是带名字的 JSON 列表", "the tools are no JSON list of named functions"),
    "no_prompt": Cure("refuse", "偏好对没有问题", "a pair without a prompt"),
    "one_answer": Cure("refuse", "只有一个回答，无从比较", "a single answer: nothing to prefer"),
    "equal_scores": Cure("refuse", "分数与最好的回答相同，无从比较", "scored like the best answer: nothing to prefer"),
    "plugin_call": Cure("refuse", "MOSS 的一轮用了插件；这种调用不读", "a turn of MOSS that uses a plugin: such calls are not read"),
    # Nothing to train on.
    "empty_record": Cure("refuse", "一轮也没有", "it has no turn at all"),
    "empty_question": Cure("refuse", "问题为空", "the question is empty"),
    "empty_answer": Cure("refuse", "回答为空", "the answer is empty"),
    "no_answer": Cure("refuse", "没有任何回答", "nobody answers"),
    "no_question": Cure("refuse", "没有任何提问", "nobody asks"),
    "same_answers": Cure("refuse", "chosen 与 rejected 相同", "chosen and rejected are the same"),
    "half_character": Cure("refuse", "半个字符（孤立的代理码位），写不成 UTF-8；从来源重新导出",
                           "half a character, which UTF-8 cannot write: export it again"),
    "unwritable": Cure("refuse", "文本之外有写不成 JSON 的值（半个字符、超过 64 位的整数、工具参数里的 NaN 和 Infinity）",
                       "a value beside the texts that JSON cannot write: half a character, an integer beyond 64 bits, NaN or Infinity in arguments"),
    # Encoding.
    "mojibake": Cure("repair", "编码读错了，能原样还原", "read in a wrong encoding; it can be read back exactly"),
    "garbled": Cure("drop", "编码读错了，且已有损失；从来源重新导出", "read in a wrong encoding, with losses: export it again"),
    "replacement_character": Cure("drop", "有 U+FFFD：字符已丢失", "U+FFFD: a character is lost"),
    "cut_character": Cure("drop", "首尾的 U+FFFD：文本在字符中间被截断", "U+FFFD at an end: the text was cut within a character"),
    "private_use": Cure("drop", "私用区字符，别处无法显示", "private-use characters that mean nothing elsewhere"),
    "invisible": Cure("repair", "控制符或零宽字符", "control or zero-width characters"),
    # Templates and identity.
    "marker_at_end": Cure("repair", "首尾带着对话模板的标记", "marks of a chat template at its ends"),
    "marker_inside": Cure("drop", "中间有对话模板的标记：多半混进了另一轮", "marks of a chat template inside: mostly another turn got in"),
    "thinking": Cure("repair", "回答里有 <think> 段；移到 reasoning", "a <think> part in the answer: it belongs into reasoning"),
    "identity": Cure("drop", "自称是别家产品；改写，或用 --own_names 声明这是你的名字",
                     "calls itself another product: rewrite it, or name it with --own_names"),
    "placeholder": Cure("drop", "没有填的占位符，如 {{name}}", "a placeholder that was never filled, such as {{name}}"),
    # Answers and turns.
    "echo": Cure("drop", "回答只是重复问题", "the answer only repeats the question"),
    "cut_answer": Cure("drop", "回答没写完：停在逗号、冒号、左括号或代码块里",
                       "the answer is cut: it stops at a comma, a colon, an opening bracket or within code"),
    "same_speaker": Cure("repair", "同一个人连说两次；合成一条", "the same speaker twice: joined into one message"),
    "agent_first": Cure("keep", "助手先开口；保留，有些模板不接受", "the assistant speaks first: kept, though some templates refuse it"),
    "unanswered_end": Cure("repair", "末尾的话没有回答；截到最后一个回答", "nobody answers its end: cut after the last answer"),
    "empty_system": Cure("repair", "系统提示为空；去掉", "an empty system message: taken out"),
    "late_system": Cure("drop", "系统提示不在开头", "a system message that is not the first"),
    "prompt_is_answered": Cure("drop", "偏好对的问题以回答结尾", "the prompt of a pair ends with an answer"),
    # Tools.
    "loose_arguments": Cure("repair", "工具参数不是严格的 JSON，但只有一种读法", "arguments that are no strict JSON but can be read in one way only"),
    "broken_arguments": Cure("drop", "工具参数不是 JSON 对象", "arguments that are no JSON object"),
    "unknown_tool": Cure("drop", "调用了没有定义的工具", "a call of a tool that is not defined"),
    "result_without_call": Cure("drop", "有工具结果而没有调用", "a tool's result that nobody called for"),
    "call_without_result": Cure("drop", "调用之后没有结果就继续了", "a call whose result is missing before the talk goes on"),
    # Personal data.
    "resident_id": Cure("repair", "身份证号（校验通过）；遮去", "a resident identity number (checksum right): masked"),
    "bank_card": Cure("repair", "银行卡号（Luhn 通过）；遮去", "a bank card number (Luhn right): masked"),
    "mobile_phone": Cure("repair", "手机号；遮去", "a mobile phone number: masked"),
    "e_mail": Cure("repair", "电子邮箱；遮去", "an e-mail address: masked"),
    "landline": Cure("repair", "固定电话；遮去", "a landline number: masked"),
    "account": Cure("repair", "微信、QQ 等账号；遮去", "a WeChat, QQ or similar account: masked"),
    "plate": Cure("repair", "车牌号；遮去", "a number plate: masked"),
    "passport": Cure("repair", "护照或通行证号；遮去", "a passport or permit number: masked"),
    "address": Cure("repair", "带门牌的地址；遮去", "an address with its door number: masked"),
    "record_number": Cure("repair", "病历、住院、医保等号；遮去", "a medical record or insurance number: masked"),
    # Between rows.
    "duplicate": Cure("drop", "与前面某条相同（不计空白、大小写、全半角）", "the same as an earlier row (but for blanks, case and width)"),
    "same_question": Cure("keep", "与前面某条问题相同、回答不同", "the question of an earlier row with another answer"),
    "near_duplicate": Cure("keep", "与前面某条很像", "much like an earlier row"),
    "test_question": Cure("drop", "测试集里的问题", "a question of the test files"),
    "test_overlap": Cure("drop", "与测试题有 13 个字相同，或含其一半", "13 words in common with a test item, or half of it"),
}
