"""Identity pollution: an answer in which the assistant calls itself another product, or the work of another maker.

Only self-description counts: 我是ChatGPT, 由OpenAI训练的我, I am Claude. Talking about a product (GPT-4是什么) does not, nor does
being somebody who uses it (我是通义千问的用户).
"""

from __future__ import annotations

import re

_PRODUCTS = ("Chat ?GPT|GPT-?[345][\\w.]*|InstructGPT|Claude|Gemini|Google Bard|Bard|Llama ?\\d?|Vicuna|Alpaca|MOSS|ChatGLM[-.0-9A-Z]{0,4}|"
             "智谱清言|通义千问|Qwen[\\d.]*|文心一言|ERNIE Bot|讯飞星火|星火认知大模型|Kimi|豆包|DeepSeek[-.0-9A-Z]{0,4}|百川大模型|Baichuan\\d?|"
             "腾讯混元|混元|天工|商量|书生浦语|InternLM|Copilot|微软小冰|小爱同学|天猫精灵|Grok|Mistral|Open ?Assistant")
_MAKERS = ("OpenAI|Anthropic|Google|谷歌|DeepMind|Meta AI|Meta|Microsoft|微软|百度|阿里云|阿里巴巴|达摩院|智谱\\s?AI|智谱|科大讯飞|讯飞|字节跳动|"
           "深度求索|月之暗面|腾讯|商汤科技|商汤|百川智能|华为|LAION|Mistral AI|复旦大学")
_THING = "(?:人工智能|智能|AI|聊天|语言模型|大模型|模型|助手|机器人|程序)"
# Between 我是 and the name: OpenAI开发的, unless the name begins with its maker: 腾讯混元
_LEAD = rf"(?:一个|一款|一名|名为|叫做|基于|[\s\"“「])*(?:由?\s?(?:{_MAKERS})(?:[^。！？，,\n的]{{0,8}}的)?\s?)??"
_RULES = [re.compile(pattern, re.IGNORECASE) for pattern in (
    rf"我(?:就|其实|只)?(?:是|叫|的名字(?:是|叫)){_LEAD}(?P<name>{_PRODUCTS})",
    rf"作为{_LEAD}(?P<name>{_PRODUCTS})[^。！？\n]{{0,10}}(?:我|{_THING})",
    rf"(?:我(?:就|也|们)?(?:是)?|作为)[^。！？，,\n我]{{0,12}}(?:由|被|来自|属于|受)\s?(?P<name>{_MAKERS})[^。！？，,\n]{{0,8}}"
    rf"(?:训练|开发|研发|创建|创造|打造|推出|设计|制作|提供|构建|{_THING})",
    rf"(?:我是|作为)(?:一个|一款|一名|\s)*(?P<name>{_MAKERS})[^。！？，,\n]{{0,10}}{_THING}",
    rf"\b(?:I am|I'm|I’m|my name is|call me)\s(?:an?\s|called\s)?(?P<name>{_PRODUCTS})\b",
    rf"\b(?:as|I am|I'm|I’m)\b[^.!?\n]{{0,60}}\b(?:trained|developed|created|made|built|designed)\sby\s(?P<name>{_MAKERS})\b",
)]
# Behind the name, up to the clause's end: who is no product.
_PERSON = re.compile(r"\s?(?:的[^。！？，,；;\n]{0,6}|忠实|资深|老|团队)?(?:用户|粉丝|使用者|爱好者|会员|成员|开发者|工程师|员工|客户)(?:之一|了)?"
                     r"\s*(?:[。！？，、；,.!?;\n]|\Z)")


def foreign_self(text: str, system: str, own_names: list[str]) -> str:
    """The sentence part in which an answer calls itself another product; empty if it does not.

    Args:
        text: an answer, without its code.
        system: the system text of the record: a name given there is a role to play.
        own_names: names that the assistant may call itself.
    """
    allowed = [name.casefold() for name in own_names]
    for rule in _RULES:
        for found in rule.finditer(text):
            name = found["name"]
            if name.casefold() not in allowed and name.casefold() not in system.casefold() and not _PERSON.match(text, found.end("name")):
                return found[0]
    return ""
