"""Rules that read: JSON with named keys, facts hidden in a long text, e-mails and dates, and labels.

Part of model_answers.py, which says what this is and is not. Everything returned is copied out of the prompt, or
is one of the choices the prompt gives. Stdlib only.
"""

from __future__ import annotations

import json
import re
from functools import cached_property

# Full-width punctuation and curly quotes as ASCII, one character for one.
PLAIN = {
    0xFF0C: ",",
    0xFF1A: ":",
    0xFF1B: ";",
    0xFF1F: "?",
    0xFF01: "!",
    0xFF08: "(",
    0xFF09: ")",
    0x3001: ",",
    0x201C: '"',
    0x201D: '"',
    0x300C: '"',
    0x300D: '"',
    0x2018: "'",
    0x2019: "'",
}
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", re.A)
URL = re.compile(r"https?://[^\s\"'<>),\u4e00-\u9fff]+")
MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
DATE = re.compile(
    rf"\d{{4}}[-/]\d{{1,2}}[-/]\d{{1,2}}|\d{{4}}年\d{{1,2}}月\d{{1,2}}日|\d{{1,2}} {MONTH} \d{{4}}|{MONTH} \d{{1,2}},? \d{{4}}"
    r"|\d{1,2}/\d{1,2}/\d{4}"
)
PRICE = re.compile(r"(?:US)?[$\u20ac\xa3\xa5\uffe5]\s?\d[\d,]*(?:\.\d+)?|\d[\d,]*(?:\.\d+)?\s?(?:dollars|euros|USD|EUR|元|美元|块)")
PHONE = re.compile(r"\+?\d[\d ()-]{7,}\d")
QUOTED = re.compile(r"\"([^\"]+)\"|(?<![A-Za-z])'([^'\n]+)'(?![A-Za-z])|`([^`]+)`")
KINDS = (
    (r"e-?mail|邮箱|邮件地址|电子邮件", EMAIL),
    (r"\burls?\b|\blinks?\b|网址|链接", URL),
    (r"\bdates?\b|日期", DATE),
    (r"\bprices?\b|\bamounts?\b|\bcosts?\b|价格|金额", PRICE),
    (r"\bphone|电话|手机号", PHONE),
)
GOOD = "good great excellent love loved wonderful amazing happy best fantastic perfect recommend enjoyed 好 喜欢 棒 满意 推荐 优秀 快"
BAD = "bad terrible awful hate hated worst broken broke slow disappointed poor horrible waste 差 糟 坏 失望 讨厌 慢 难吃"
HINTS = {
    **dict.fromkeys(("positive", "正面", "积极", "好评"), GOOD),
    **dict.fromkeys(("negative", "负面", "消极", "差评"), BAD),
    "spam": "free win winner prize click offer cash urgent 中奖 免费 点击",
    "billing": "invoice charge charged refund payment card bill price paid 账单 付款 退款 扣款",
    "technical": "error crash crashes bug login password install server screen 错误 崩溃 登录 安装",
    "shipping": "delivery package parcel arrive arrived tracking ship shipped 快递 包裹 物流",
    "sports": "match team goal player game won league coach score 比赛 球队 进球",
    "politics": "election minister parliament vote government president 选举 总统 政府",
    "technology": "software chip computer phone app startup 软件 芯片 手机",
}
UNDECIDED = ("neutral", "other", "unknown", "not spam", "ham", "中性", "其他")
NAME = (
    r"\b([A-Z][a-z]+ [A-Z][a-z]+)\b",
    r"\b(?:called|named|am|is|by) ([A-Z][a-z]+)",
    r"\b([A-Z][a-z]+) (?:is|was|lives|works|bought|ordered)\b",
)
PLACE = (r"\b(?:in|from|at|to) ([A-Z][a-z]+(?: [A-Z][a-z]+)?)", r"(?:在|来自|住在)([\u4e00-\u9fff]{2})")


class Prompt:
    def __init__(self, asked: str, system: str = "") -> None:
        self.raw = asked
        self.system = system.translate(PLAIN)
        self.plain = asked.translate(PLAIN)
        # Where a question can stand; a rule with a wide pattern must not walk through a book.
        self.asks = self.plain if len(self.plain) <= 3000 else self.plain[:1200] + "\n" + self.plain[-1200:]
        self.chinese = bool(re.search(r"[\u4e00-\u9fff]", self.asks))

    def copy(self, m: re.Match[str]) -> str:
        """What the first group that matched in `plain` was in the original."""
        group = next(n for n in range(1, (m.re.groups or 0) + 1) if m[n] is not None)
        return self.raw[m.start(group) : m.end(group)]

    def subject(self) -> str | None:
        """The text a prompt is about: the longest in quotes, else what follows a colon."""
        if len(self.plain) > 3000:
            return None
        found = [self.copy(m) for m in QUOTED.finditer(self.plain)]
        if found:
            return max(found, key=len)
        m = re.search(r":\s*(\S.*)", self.plain, re.S)
        return self.copy(m).strip() if m else None

    @cached_property
    def body(self) -> str:
        """The text to be read, when the prompt says where it begins; else all of it."""
        names = "text|sentence|passage|message|review|input|email|ticket|comment|order|文本|句子|内容|评论|文字|信息"
        m = re.search(rf"(?:{names})\s*:\s*(\S.*)", self.plain, re.I | re.S)
        return m[1] if m else self.plain


def as_json(p: Prompt) -> str | None:
    if not re.search(r"\bjson\b", f"{p.system}\n{p.asks}", re.I):
        return None
    for text in (p.asks, p.system):
        keys = named_keys(text)
        if keys:
            return json.dumps({key: value_for(key, p.body) for key in dict.fromkeys(keys)}, ensure_ascii=False)
    return None


def named_keys(text: str) -> list[str]:
    shape = re.search(r"\{[^{}]*:[^{}]*\}", text)
    found = re.findall(r"[\"']([A-Za-z_]\w*)[\"']\s*:", shape[0]) if shape else []
    if found:
        return found
    m = re.search(r"(?:\bkeys?\b|\bfields?\b|\bproperties\b|键|字段)([^.\n]{0,200})", text, re.I)
    if not m:
        return []
    quoted = re.findall(r"[\"'`]([A-Za-z_]\w*)[\"'`]", m[1])
    if quoted:
        return quoted
    listed = re.match(
        r"\s*(?:are|is|named|called|为|是)?\s*:?\s*([A-Za-z_]\w*(?:\s*\([^)]*\))?(?:\s*(?:,\s*and|,|and|和)\s*[A-Za-z_]\w*(?:\s*\([^)]*\))?)*)",
        m[1],
        re.A,
    )
    return [k for k in re.findall(r"[A-Za-z_]\w*", re.sub(r"\([^)]*\)", "", listed[1]), re.A) if k != "and"] if listed else []


def value_for(key: str, text: str) -> object:
    name = key.lower()
    for part, pattern in (("mail", EMAIL), ("date", DATE), ("url", URL), ("link", URL), ("phone", PHONE)):
        if part in name:
            found = pattern.search(text)
            return found[0] if found else None
    if re.search(r"price|total|amount|cost", name) and (found := PRICE.search(text)):
        return as_number(re.sub(r"[^\d.]", "", found[0]))
    if re.search(r"age|count|quantity|number|total|amount|price|cost|year|qty|score|items", name):
        near = (
            re.search(r"(\d+)\s*(?:-?years?[ -]old|岁)", text, re.I)
            if name == "age"
            else re.search(rf"\b{re.escape(name)}\b\D{{0,12}}(\d[\d,.]*)", text, re.I)
        )
        near = near or re.search(r"(\d[\d,]*(?:\.\d+)?)", text)
        return as_number(near[1]) if near else None
    said = re.search(rf"\b{re.escape(key)}\b\s*(?:is|=|:|是|为)\s*[\"']?([^\"'\n,;.\u3002]+)", text, re.I)
    if said:
        return said[1].strip()
    patterns: tuple[str, ...] = ()
    if re.search(r"city|location|country|place", name):
        patterns = PLACE
    elif re.search(r"name|person|author|customer", name):
        patterns = (*NAME, r"(?:叫|姓名是?:?|我是)([\u4e00-\u9fff]{2,3})")
    for wanted in patterns:
        found = re.search(wanted, text)
        if found:
            return found[1]
    return None


def as_number(text: str) -> int | float | None:
    try:
        value = float(text.replace(",", "").rstrip("."))
    except ValueError:
        return None
    return int(value) if value == int(value) else value


def needle(p: Prompt) -> str | None:
    """ "What is the password?", where somewhere the text says what it is."""
    things = "password|passcode|code|key|secret|number|token|word|passphrase|codename|name"
    m = re.search(
        rf"what(?:'s| is| was) (?:the |my )?((?:[a-z]+ ){{0,3}}(?:{things}))\b(?: (?:mentioned|in|for|above|hidden|given|of)\b[^?]*)?\?",
        p.asks,
        re.I,
    )
    if m:
        text = f"{p.system}\n{p.plain}".replace(m[0], " ")
        for thing in (m[1], m[1].split()[-1]):
            found = re.findall(rf"\b{re.escape(thing)}\b[^.\n?]{{0,40}}?(?:\bis\b|\bwas\b|=|:)\s*[\"'`]?([A-Za-z0-9][\w-]*)", text, re.I)
            found = [f for f in found if f.lower() not in ("the", "a", "what", "not", "in", "hidden", "this", "below")]
            if found:
                return str(found[0])
    m = re.search(r"([\u4e00-\u9fff]*?(?:密码|口令|暗号|代码|编号|验证码|密钥|数字|代号))[是为]?(?:什么|多少|几)", p.asks)
    if m:
        for size in (len(m[1]), 4, 3, 2):
            found = re.findall(rf"{re.escape(m[1][-size:])}[是为:]\s*:?\s*[\"']?([A-Za-z0-9][\w-]*)", p.plain, re.A)
            if found:
                return str(found[0])
    return None


def extract(p: Prompt) -> str | None:
    if not re.search(
        r"extract|\bcopy\b|\bfind\b|\blist\b|\bgive\b|pull out|what is the|which|what (?:e-?mail|date)|提取|找出|列出|抽取|是什么|多少",
        p.asks,
        re.I,
    ):
        return None
    for words, pattern in KINDS:
        if re.search(words, p.asks, re.I):
            found = [m[0].rstrip(".") for m in pattern.finditer(p.plain)]
            if found:
                return ", ".join(iso(f) if pattern is DATE and "YYYY-MM-DD" in p.asks else f for f in dict.fromkeys(found))
    return None


def iso(date: str) -> str:
    """A date that begins with its year, as YYYY-MM-DD; any other as it is."""
    m = re.match(r"(\d{4})\D(\d{1,2})\D(\d{1,2})", date)
    return f"{m[1]}-{int(m[2]):02d}-{int(m[3]):02d}" if m else date


def label(p: Prompt) -> str | None:
    whole = f"{p.system}\n{p.asks}"
    lettered = re.findall(r"(?:^|\s)\(?([A-H])[).:]\s*([^\n]+?)(?=\s+\(?[A-H][).:]\s|\n|$)", whole)
    asks = r"classif|categor|label|sentiment|choose|which of|pick|one of|one word|\beither\b|分类|情感|类别|选择|属于|一个词|哪一"
    known = [name for name in HINTS if re.search(rf"\b{name}\b" if name.isascii() else name, whole, re.I)]
    if len(lettered) > 1:
        names = [words for _, words in lettered]
    elif re.search(asks, whole, re.I):
        names = listed_labels(whole)
    else:
        names = []
    names = known if len(names) < 2 else names
    if len(names) < 2:
        return None
    text = p.body if p.body != p.plain else p.plain.strip().split("\n")[-1]
    source = words_of(text)
    own = p.body != p.plain  # where the text stands apart, a label's own words in it count too
    scores = [len(source & (words_of(HINTS.get(n.lower(), "")) | (words_of(n) if own else set()))) for n in names]
    best = scores.index(max(scores))
    if max(scores) == 0:
        best = next((i for i, n in enumerate(names) if n.lower() in UNDECIDED), 0)
    return lettered[best][0] if len(lettered) > 1 else names[best]


def listed_labels(text: str) -> list[str]:
    intro = (
        r"one of(?: the following)?(?: labels| categories| options)?|\bas(?: either)?\b|labels?|categories|options|one word|either"
        r"|choose(?: from| between)?|类别|标签|选项|分为|选择|属于|之一|一个词"
    )
    best: list[str] = []
    for m in re.finditer(rf"(?:{intro})\s*(?:are|is|有|是|为)?\s*[:(]?\s*([^\n.?\u3002]+)", text, re.I):
        names = [re.sub(r"[\"'`()\[\]]", "", n).strip() for n in re.split(r"\s*(?:,|/|;|\bor\b|\band\b|或者|或|还是|和)\s*", m[1])]
        names = [n for n in names if 0 < len(n) <= 24 and len(n.split()) <= 3]
        if len(names) > len(best):
            best = names
    return best


def words_of(text: str) -> set[str]:
    found = set(re.findall(r"[a-z]+", text.lower()))
    for piece in re.findall(r"[\u4e00-\u9fff]+", text):
        found |= {piece[i : i + n] for n in (1, 2) for i in range(len(piece) - n + 1)}
    return found
