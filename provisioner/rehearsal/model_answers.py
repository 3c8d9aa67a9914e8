"""What the simulated model says: a few honest rules over the prompt, and otherwise that it has no rule.

It has never seen an eval set. It does what a rule can do (arithmetic, counting, copying out of the text, picking a
label by its words), in English and Chinese, so that scoring has right and wrong answers to score; it is no model,
and a score it gets says nothing about any model. It knows nothing about the world. Stdlib only.

Rules match `plain`, in which full-width punctuation has become ASCII, character for character; what they copy comes
from the original text at the same place. Rules that look for a question see only the ends of a long prompt.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from .model_reading import Prompt, as_json, extract, label, needle

NO_RULE = "SIMULATED: no rule for this prompt"
NUMBER = r"-?\d+(?:,\d{3})*(?:\.\d+)?"
LARGER = r"larger|greater|bigger|more|larg|bigg|high"
HARM = re.compile(
    r"\b(?:pipe bombs?|bombs?|explosives?|malware|ransomware|nerve agents?|nerve gas|chlorine gas|methamphetamine|phishing|keyloggers?"
    r"|bioweapons?|counterfeit|landmines?)\b"
    r"|\b(?:how (?:to|do i|can i)|steps? (?:to|for)|instructions? (?:to|for)|help me|teach me)\b.{0,40}\b(?:hack|poison|steal|kill|stalk"
    r"|launder|murder|blackmail|break into|shoplift)"
    r"|炸弹|炸药|毒品|冰毒|勒索软件|木马病毒|钓鱼(?:邮件|网站)|假钞|毒气"
    r"|(?:入侵|盗取|窃取|偷|破解|撬).{0,10}(?:账户|账号|银行|密码|信用卡|邻居|别人)",
    re.I | re.S,
)
OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}
SIGNS = (
    (r"\bplus\b|加上|加", "+"),
    (r"\bminus\b|减去|减|\u2212", "-"),
    (r"\btimes\b|\bmultiplied by\b|\xd7|乘以|乘|(?<=\d)\s*x\s*(?=\d)", "*"),
    (r"\bdivided by\b|\xf7|除以", "/"),
)
COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda t: len(t.split()),
    "单词": lambda t: len(re.findall(r"[A-Za-z']+", t)),
    "letters": lambda t: len(re.findall(r"[A-Za-z]", t)),
    "字母": lambda t: len(re.findall(r"[A-Za-z]", t)),
    "vowels": lambda t: len(re.findall(r"[aeiou]", t, re.I)),
    "digits": lambda t: len(re.findall(r"\d", t)),
    "sentences": lambda t: len(re.findall(r"[^.!?\u3002]+[.!?\u3002]", t)),
    "汉字": lambda t: len(re.findall(r"[\u4e00-\u9fff]", t)),
    "字": lambda t: len(re.findall(r"[\u4e00-\u9fff]", t)),
}


def answer(messages: list[Mapping[str, object]]) -> str:
    """The reply to a chat: the last thing the user said, read with the system's words before it."""
    system = "\n".join(text_of(m) for m in messages if m.get("role") in ("system", "developer"))
    asked = next((text_of(m) for m in reversed(messages) if m.get("role") == "user"), "")
    prompt = Prompt(asked, system)
    for rule in RULES:
        said = rule(prompt)
        if said is not None:
            return said
    return NO_RULE


def text_of(message: Mapping[str, object]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


def refuse(p: Prompt) -> str | None:
    if HARM.search(p.plain):
        return "抱歉,我不能帮助这个请求。" if p.chinese else "I can't help with that request."
    return None


def exact(p: Prompt) -> str | None:
    m = re.search(
        r"\b(?:reply|respond|answer|say|output|print|write)\b[^.:\n]{0,40}?\b(?:exactly|verbatim|only the words?)\b", p.plain, re.I
    )
    m = m or re.search(r"(?:只|仅|原样)需?(?:回答|回复|输出)|^(?:repeat|复述|重复)", p.plain, re.I)
    if not m:
        return None
    rest = re.compile(r"[^:\n\"]{0,30}(?:\"([^\"\n]+)\"|'([^'\n]+)'|:\s*([^\n]+))").match(p.plain, m.end())
    return None if rest is None else p.copy(rest).strip().strip("\"'").strip()


def count(p: Prompt) -> str | None:
    m = re.search(
        r"how many (?:times )?[^?]{0,40}?(?:(?:letter|character)s?\s*)?['\"`]?\b([A-Za-z])\b['\"`]?(?:'?s)?[^?]{0,40}?\bin\b\s*"
        r"(?:the word\s*)?"
        r"['\"`]?([A-Za-z]{2,})",
        p.asks,
        re.I,
    )
    m = m or re.search(
        r"([A-Za-z]{2,})['\"`]?\s*[这个词]{0,3}[中里]面?(?:有|包含|出现)了?[多几]少?[个次]?(?:字母)?\s*['\"`]?([A-Za-z])", p.asks
    )
    if m:
        letter, word = sorted(m.groups(), key=len)
        if len(letter) == 1:
            return str(word.lower().count(letter.lower()))
    wanted = re.search(
        r"(?:how many|count(?: the)?(?: number of)?)\s+(words|letters|characters|vowels|digits|sentences)"
        r"|[多几]少?个?(字符|字母|单词|汉字|字)",
        p.asks,
        re.I,
    )
    text = p.subject() if wanted else None
    if wanted is None or text is None:
        return None
    return str(COUNTS.get((wanted[1] or wanted[2]).lower(), len)(text))


def transform(p: Prompt) -> str | None:
    text = p.subject()
    if text is None:
        m = re.search(r"(?:reverse|uppercase|capitali[sz]e|lowercase)\s+(?:the )?(?:word|string|text)?\s*(\w+)\s*[.?]?$", p.asks, re.I)
        text = m[1] if m else None
    if text is None:
        return None
    if re.search(r"\bsort|alphabetical|排序", p.asks, re.I):
        parts = [part for part in re.split(r"\s*[,\uff0c\u3001]\s*|\s+", text.strip(" .\u3002")) if part]
        if all(re.fullmatch(NUMBER, part) for part in parts):
            parts.sort(key=exactly, reverse=bool(re.search(r"descend|降序|从大到小", p.asks, re.I)))
        else:
            parts.sort(key=str.lower)
        return ", ".join(parts)
    if re.search(r"\brevers|backwards|倒序|反转|颠倒|倒过来", p.asks, re.I):
        words = re.search(r"order of (?:the )?words|word order", p.asks, re.I)
        return " ".join(reversed(text.split())) if words else text[::-1]
    if re.search(r"upper-?\s?case|all caps|capital letters|大写", p.asks, re.I):
        return text.upper()
    if re.search(r"lower-?\s?case|小写", p.asks, re.I):
        return text.lower()
    return None


def compare(p: Prompt) -> str | None:
    which = re.search(rf"\b(?:which|what)\b[^?]*\b(?:{LARGER}|small|less|low)\w*|哪[个一]?.{{0,3}}[大小]|最[大小]", p.asks, re.I)
    if which:
        found = re.findall(NUMBER, p.asks)
        if len(found) >= 2:
            pick = min if re.search(r"small|less|low|小", which[0], re.I) else max
            return str(pick(found, key=exactly))
    m = re.search(rf"({NUMBER})\s*(?:is\s*)?({LARGER}|less|smaller|lower|equal)\w*\s*(?:than|to)\s*({NUMBER})", p.asks, re.I)
    m = m or re.search(rf"({NUMBER})\s*(?:是否|是不是)?(大于|小于|等于|比)\s*({NUMBER})\s*(小)?", p.asks)
    if not m:
        return None
    a, b, word = exactly(m[1]), exactly(m[3]), m[2].lower()
    smaller = word in ("less", "smaller", "lower", "小于") or (word == "比" and m[4] == "小")
    true = a < b if smaller else a == b if word in ("equal", "等于") else a > b
    return ("是" if true else "否") if p.chinese else "Yes" if true else "No"


def arithmetic(p: Prompt) -> str | None:
    return calculate(p.asks)


def calculate(text: str) -> str | None:
    """The value of the longest piece of arithmetic in a text."""
    m = re.search(rf"({NUMBER})\s*(?:%|percent)\s*(?:of|的)\s*({NUMBER})", text, re.I) or re.search(
        rf"({NUMBER})\s*的\s*({NUMBER})\s*%", text
    )
    if m:
        return show(exactly(m[1]) * exactly(m[2]) / 100)
    m = re.search(
        rf"\b(sum|difference|product|quotient|average|mean)\b (?:of|between) (?:the numbers )?((?:{NUMBER}(?:,? and |, ?)?)+)", text, re.I
    )
    if m:
        found = [Fraction(t) for t in re.findall(r"-?\d+(?:\.\d+)?", m[2])]
        if len(found) >= 2:
            product = found[0]
            for other in found[1:]:
                product *= other
            first, second, total = found[0], found[1], sum(found, Fraction(0))
            values = {
                "sum": total,
                "difference": first - second,
                "product": product,
                "average": total / len(found),
                "mean": total / len(found),
            }
            values["quotient"] = first / second if second else total
            return show(values[m[1].lower()])
    m = re.search(rf"({NUMBER})\s*(?:squared|的平方)|square of ({NUMBER})", text, re.I)
    if m:
        return show(exactly(m[1] or m[2]) ** 2)
    for words, sign in SIGNS:
        text = re.sub(words, f" {sign} ", text, flags=re.I)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    pieces = [t for t in re.findall(r"[-(\d][\d\s.()+*/%-]*[\d)]", text) if re.search(r"\d\s*\)*\s*[-+*/%]+\s*\(*\s*-?\d", t)]
    pieces = [t.strip() for t in pieces if not re.fullmatch(r"\s*\d{4}-\d{1,2}-\d{1,2}\s*", t)]
    if not pieces:
        return None
    try:
        return show(evaluate(ast.parse(max(pieces, key=len), mode="eval").body))
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError):
        return None


def evaluate(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return Fraction(str(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](evaluate(left), evaluate(right))
    raise ValueError("not arithmetic")


def exactly(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def show(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.6f}".rstrip("0").rstrip(".")


RULES: tuple[Callable[[Prompt], str | None], ...] = (refuse, as_json, needle, extract, count, label, compare, exact, transform, arithmetic)
