"""Filters for generated Chinese tasks. Each answers None (keep) or the reason's name. Lengths are characters: Chinese has no word blanks.

They judge form, not truth. Words are looked for among jieba's words, not as substrings: 画蛇添足 asks for no drawing, and
豆包 may be a bun. A medium is no reason by itself: what counts is that the task needs one (下图), or asks for one to be made.
"""

from __future__ import annotations

import re
from itertools import pairwise

from zhtune.synthesis.novelty import words
from zhtune.text import HAN, fold

_HAN = re.compile(f"[{HAN}]")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff]")
_FOREIGN_WORD = re.compile("[A-Za-z\u00c0-\u02af\u0370-\u052f\u0590-\u06ff\u0900-\u0e7f\u1100-\u11ff\uac00-\ud7a3]+")
# Words and characters of everyday Chinese that written Japanese does not have.
_CHINESE_ONLY = re.compile("[的吗呢吧么请这那哪您你们给让说谁怎样个为写译]|是什|把")

_DEICTIC = frozenset("下图 上图 如图 图中 附图 左图 右图 插图中 图一 图二 如图所示".split())
_POINTERS = frozenset("这 这张 这幅 这段 这个 该 此 此图 下面 下列 以下 上面 上述 给定 一张 附上 提供 所示 下方".split())
_BETWEEN = frozenset("的 张 幅 段 个 份 些 一张 一段 一幅 两张 几张 给出 出".split())
_MEDIA = frozenset("图片 图像 照片 相片 视频 短视频 音频 录音 图表 流程图 折线图 柱状图 柱形图 饼图 饼状图 曲线图 示意图 思维导图 插画 "
                   "海报 截图 动画 油画 水彩画 简笔画 素描 漫画 简谱 歌曲 音乐 二维码 图案".split())
_POINTED_AT = frozenset("图片 图像 照片 相片 视频 音频 录音 图表 截图 流程图 折线图 柱状图 饼图 曲线图 漫画".split())
_MAKERS = frozenset("画 画出 画个 绘制 绘 拍 拍摄 录制 播放 观看 剪辑 生成 上传 下载 打开 点击 截取 扫描 合成 发送 发给 放".split())
_DRAWN = re.compile("一|几|两|三|出|个|张|幅|副|条|只|图")       # what follows 画 when it is a verb
_TEXT_ANYWAY = frozenset("脚本 文案 标题 说明 描述 大纲 方案 计划 介绍 台词 解说词 评论 歌词 代码 程序 函数 函数库 提示 提示词 网站 软件 应用 工具 "
                         "平台 公司 系统 算法 字符 故事 方法 步骤 技巧 流程 想法 创意 主题 技术 区别 差异 SVG svg Markdown markdown Mermaid mermaid "
                         "ASCII ascii Python python LaTeX latex HTML html CSS css Java JavaScript SQL R".split())
_HOW = frozenset("如何 怎么 怎样 怎么样 怎么办 为什么 为何 什么 方法 如果 是否 能否 可以".split())
_ATTACHED = re.compile("[见看开]附件|附件[里中]的?(?:文|表|图|内)")     # 附件 alone may be a part of the body
_LINK = re.compile(r"https?://\S|www\.\w")
_OPENERS = frozenset("打开 访问 点击 浏览 下载 总结 概括 阅读 查看 链接 网址 网页".split())
_ACTS = re.compile(r"^\W*(?:请|麻烦)?(?:你|您)?(?:能不能|可不可以|能否|可否|能|可以)?(?:请)?(?:在[^，。]{1,12})?"
                   "(?:提醒我|叫醒我|叫我起床|(?:设|定)(?:置)?(?:一)?个?闹钟|帮我(?:订|预订|购买|下单|打电话|发邮件|转账))")

_TEACHERS = re.compile(r"(?<![A-Za-z])(?:chat-?gpt|gpt-?[345](?:\.5|o)?|open-?ai|anthropic|deepmind|llama-?[234]|chatglm\w*|text-davinci\S*)"
                       "(?![A-Za-z])"
                       "|文心一言|通义千问|讯飞星火|智谱清言|腾讯混元|百川智能", re.IGNORECASE)
_IDENTITY = re.compile(r"(?:我是|我叫|我的名字是|作为|身为)(?:一个|一名|一款)?(?:由[^，。]{1,12}(?:开发|训练|研发|创建|推出)的)?\s*"
                       r"(?:大型|大)?(?:AI|人工智能|语言模型|大模型|聊天机器人|豆包|千问|文心|星火|混元|Claude|Gemini|Kimi|DeepSeek|Qwen|Llama)"
                       r"|由\s*(?:OpenAI|Anthropic|Google|Meta|DeepSeek|阿里云|百度|字节跳动|智谱|月之暗面)\S{0,6}(?:开发|训练|研发|创建)的",
                       re.IGNORECASE)
_SORRY = r"(?:(?:非常|很|十分|真的)?(?:抱歉|对不起|不好意思|遗憾)[，,。!！ ]*)"
_CANNOT = (r"我(?:目前|暂时|现在|并|还|也)*(?:无法|不能|没有办法|没办法|不会|没有能力|不具备|没有权限|不方便)"
           r"(?:直接|为您|为你|给您|给你|帮您|帮你|向您|向你|够)*(?:回答|提供|完成|满足|协助|帮助|处理|执行|访问|查看|打开|生成|创建|播放|浏览|讨论|参与|透露|理解|确定|给出|支持|听|看|画)")
_REFUSAL = re.compile(rf"^\W*(?:{_SORRY}(?:但|但是|不过)?[，,]?(?:作为[^，,。]{{2,20}}[，,])?{_CANNOT}|{_CANNOT}(?:您|你|这|该|此|任何|相关)|"
                      r"(?:抱歉|对不起)[，,]?这个问题(?:我)?(?:无法|不能)|(?:I'?m sorry|Sorry|I apologi[sz]e|As an AI)\b)", re.IGNORECASE)
_MARKERS = re.compile(r"<\|?/?(?:im_start|im_end|system|user|assistant|endoftext|think|s)\|?>|\[/?INST\]|"
                      r"^###\s*(?:$|Instruction|Input|Output|Response|指令|输入|输出)|"
                      r"^\s*[0-9]+\s*[.、]\s*(?:Instruction|Input|指令|输入)\s*[:：]", re.MULTILINE)
_PLACEHOLDER = re.compile(r"^\W*(?:(?:此处|这里)?(?:插入|填写|粘贴|输入)?(?:一段|一篇|某)?(?:文章|文本|内容|段落|句子|列表|数据|代码)(?:内容|正文)?|"
                          r"待填写|略|省略|TODO|XXX+|示例|暂无)\W*$", re.IGNORECASE)
_LOOP = re.compile(r"(.{2,40}?)\1{5,}", re.DOTALL)


def instruction_refusal(instruction: str, given: str = "", most: int = 200) -> str | None:
    """Why an instruction with its input is no task for a Chinese text model; None if it is one.

    Args:
        instruction: normalised.
        given: its input, may be empty.
        most: characters of the instruction without blanks. Four are needed; with an input two are enough (翻译).
    """
    visible = "".join(instruction.split())
    if not visible:
        return "no_instruction"
    if len(visible) < (2 if given.strip() else 4):
        return "instruction_short"
    if len(visible) > most:
        return "instruction_long"
    return language_refusal(instruction) or _form_refusal(instruction + "\n" + given) or _task_refusal(instruction, given)


def answer_refusal(answer: str, instruction: str, given: str = "", most: int = 4000) -> str | None:
    """Why an answer is none; None if it may be one. An answer may be in any language, and as short as 是."""
    visible = "".join(answer.split())
    if not visible:
        return "no_answer"
    if len(visible) > most:
        return "answer_long"
    if len(visible) > 8 and _bare(answer) in (_bare(instruction), _bare(given)):
        return "answer_echoes"
    if _REFUSAL.match(answer):
        return "refuses"
    if _IDENTITY.search(answer):
        return "speaks_as_model"
    if _TEACHERS.search(answer):
        return "teacher_name"
    if _PLACEHOLDER.fullmatch(answer) and len(visible) > 1 and visible not in ("列表", "数据", "代码", "文章", "句子", "段落", "示例"):
        return "placeholder"
    return _form_refusal(answer)


def language_refusal(text: str) -> str | None:
    """ "not_chinese" for an instruction in another language; one that holds foreign text to work on, or sums only, is kept."""
    han, kana = len(_HAN.findall(text)), len(_KANA.findall(text))
    foreign = _FOREIGN_WORD.findall(text)
    if han == 0:
        if foreign or kana:
            return "not_chinese"
        return None if any(c.isdigit() for c in text) else "no_words"
    if kana >= han and not _CHINESE_ONLY.search(text):
        return "not_chinese"
    if len(foreign) >= 3 * han and text.strip()[:1].isascii():
        return "not_chinese"                                # an English sentence about a Chinese word
    return None


def _bare(text: str) -> str:
    return fold(text).strip("。.!！?？：:“”\"")


def _form_refusal(text: str) -> str | None:
    if "\ufffd" in text:
        return "garbled"
    if _MARKERS.search(text):
        return "template_marker"
    looped = _LOOP.search(text)
    if looped and len(set(looped[1])) > 1 and len(looped[0]) > len(text) / 3 and len(looped[0]) > 40:
        return "loops"
    return None


def _task_refusal(instruction: str, given: str) -> str | None:
    if _TEACHERS.search(instruction) or _TEACHERS.search(given):
        return "teacher_name"
    if given.strip() and _PLACEHOLDER.fullmatch(given):
        return "placeholder"
    tokens = words(instruction)
    if _LINK.search(instruction + given) and _OPENERS.intersection(tokens):
        return "link"
    if _ATTACHED.search(instruction):
        return "modality"
    if _ACTS.match(instruction):
        return "acts_in_the_world"
    return "modality" if _needs_medium(tokens) or _DEICTIC.intersection(words(given)) else None


def _needs_medium(tokens: list[str]) -> bool:
    """Whether a task points at a picture or sound that is not there, or asks for one to be made."""
    if _DEICTIC.intersection(tokens):
        return True
    makes_text = bool(_TEXT_ANYWAY.intersection(tokens) or _HOW.intersection(tokens))
    for place, token in enumerate(tokens):
        before = tokens[max(place - 4, 0):place]
        while before and before[-1] in _BETWEEN:
            before.pop()
        if token in _POINTED_AT and before and before[-1] in _POINTERS and not _TEXT_ANYWAY.intersection(tokens[place + 1:place + 2]):
            return True
        if token in _MEDIA and not makes_text and _MAKERS.intersection(tokens[max(place - 6, 0):place]):
            return True
    return not makes_text and any(verb in ("画", "绘") and _DRAWN.match(what) for verb, what in pairwise(tokens))
