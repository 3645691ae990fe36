"""A training run as a page: losses, what was measured on the way, the first batch. Knows figures, not how they came about."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from zhtune.page import Page, line_plot
from zhtune.train.samples import Sample


def readable(sample: Sample, tokenizer: Any) -> str:
    """A sample as text, what is trained in 【】."""
    text, ids = "", sample.input_ids
    bounds = [0, *(i for i in range(1, len(ids)) if sample.loss_mask[i] != sample.loss_mask[i - 1]), len(ids)]
    for start, end in pairwise(bounds):
        piece = tokenizer.decode(ids[start:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        text += f"【{piece}】" if sample.loss_mask[start] else piece
    return text


def write_page(file: Path, name: str, figures: dict[str, Any]) -> None:
    """report.html of a training stage from the figures of trainer.fit.

    Args:
        file: to write.
        name: the stage's verb.
        figures: "losses", "validation", "history", "steps", "tokens", "seconds", perhaps "best" and "first_batch".
    """
    page = Page(("训练记录", "Training run"), f"zhtune {name}")
    speed = figures["tokens"] / figures["seconds"] if figures["seconds"] else None
    losses, best = figures["losses"], figures.get("best")
    page.figures([(("步数", "steps"), figures["steps"]), (("词元", "tokens"), figures["tokens"]), (("词元/秒", "tokens/s"), speed and round(speed)),
                  (("首个损失", "first loss"), losses[0][1] if losses else None), (("末个损失", "last loss"), losses[-1][1] if losses else None),
                  *([(("最好的一步", "best step"), best["step"])] if best else [])])
    page.section("损失", "Loss")
    page.plot(line_plot({"训练 training": losses, "验证 validation": figures["validation"]}, "步 step", "损失 loss (nats)"))
    for key, title, unit in _CURVES:
        if points := [(entry["step"], entry[key]) for entry in figures["history"] if key in entry]:
            page.section(*title)
            page.plot(line_plot({" ".join(title): points}, "步 step", unit))
    if batch := figures.get("first_batch"):
        page.section("第一批样本", "First batch")
        page.text("【】内的词元参与训练。", "Tokens within 【】 are trained.")
        for text in batch[:_SHOWN]:
            page.code(text)
    file.write_text(page.html(), "utf-8")


_SHOWN = 8
_CURVES = (("eval_bits_per_character", ("每字比特数", "Bits per character"), "bits"), ("rewards/margins", ("偏好差距", "Margin"), "β · nats"),
           ("rewards/accuracies", ("偏好正确率", "Accuracy"), ""), ("logps/chosen", ("被选回答的对数概率", "Log-probability of chosen"), "nats"),
           ("logps/rejected", ("被拒回答的对数概率", "Log-probability of rejected"), "nats"))
