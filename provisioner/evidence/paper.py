"""`report.pdf`: the page for people who hand in paper, with the whole bundle attached, so that the one file still verifies.

The few parts of PDF that it takes, written here: text in the two Helveticas that every reader has, and one embedded file,
stored as it is. No date, no random id, no compression: the same statement and the same bundle make the same bytes. Text
goes through `words.text` and is escaped; what the font has no letter for becomes a question mark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from provisioner.evidence import words
from provisioner.evidence.render import ROWS, money_rows, note, timeline_rows
from provisioner.model import Json

WIDE, HIGH, EDGE = 595, 842, 50
# Widths of Helvetica's letters from the space to the tilde, in thousandths, as Adobe's metrics give them.
_WIDTHS = (
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 556 556 556 556 556 556 556 556 556 556 278 278 584 584 584 556 1015 "
    "667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 722 667 611 722 667 944 667 667 611 278 278 278 469 556 333 "
    "556 556 500 556 556 278 556 556 222 222 500 222 833 556 556 556 556 333 500 278 556 500 722 500 500 500 334 260 334 584"
)
WIDTHS = tuple(map(int, _WIDTHS.split()))


def paper(statement: Json, name: str, archive: bytes) -> bytes:
    """The document, with the archive attached under that name."""
    predicate = statement["predicate"]
    pages = _paged(_lines(predicate, name))
    content = 5 + 2 * len(pages)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /PageMode /UseAttachments /Names << /EmbeddedFiles << /Names [(%b) %d 0 R] >> >> >>"
        % (_escaped(name), content + 1),
        b"<< /Type /Pages /Count %d /Kids [%b] >>" % (len(pages), b" ".join(b"%d 0 R" % (5 + 2 * n) for n in range(len(pages)))),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>",
    ]
    for n, drawn in enumerate(pages):
        fonts = b"<< /Font << /F1 3 0 R /F2 4 0 R >> >>"
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Resources %b /Contents %d 0 R >>" % (WIDE, HIGH, fonts, 6 + 2 * n)
        )
        objects.append(_stream(b"", drawn))
    checked = b"/Type /EmbeddedFile /Subtype /application#2Fzip /Params << /Size %d >>" % len(archive)
    objects.append(_stream(checked, archive))
    objects.append(b"<< /Type /Filespec /F (%b) /UF (%b) /EF << /F %d 0 R >> >>" % (_escaped(name), _escaped(name), content))
    return _file(objects)


def _lines(predicate: dict[str, Any], name: str) -> Iterator[tuple[int, bool, str]]:
    """Size, bold, text: one paragraph each."""
    run = predicate["run"]
    tier, *said = words.first(predicate)
    yield 16, True, f"gpulease run {run['id']}"
    if predicate["simulated"]:
        yield 11, True, "SIMULATED. A rehearsal on the user's own computer: no cloud was called, nothing was billed."
    yield 13, True, tier
    for sentence in said:
        yield 10, False, sentence
    yield 10, False, f"The run {run.get('outcome', 'has no recorded outcome')}; verdict {predicate['verdict']}."
    yield from _part("Timeline (UTC)", (f"{at}  {what}" + (f"  (± {off})" if off else "") for at, what, off in timeline_rows(predicate)))
    rows = (f"{what} {of}".strip() + f": {lo} to {hi} USD, best guess {best}" for what, of, lo, best, hi in money_rows(predicate))
    yield from _part("Cost at list price", rows)
    things = (f"{r['class']} {r.get('id', '(answer lost)')}: {r['final']}" for r in predicate["resources"])
    yield from _part("What there was", things)
    for look in predicate["sweeps"][-1:]:
        seen = (f"{c['class']} ({', '.join(c['regions'])}): {c['ours'] if c['checked'] else 'not checked'} found" for c in look["classes"])
        yield from _part(f"What was looked for, last at {look['at']}", seen)
    times = (("armedAt", "armed"), ("readBackAt", "read back"), ("firesAt", "would fire"), ("removedAt", "removed"))
    guards = (
        ", ".join([g["kind"], *(f"{what} {g[field]}" for field, what in times if field in g), *filter(None, [note(g)])])
        for g in predicate["guards"]
    )
    yield from _part("Guards", guards)
    yield from _part("What this does not show", words.sentences(predicate))
    yield from _part(
        "Check it",
        [
            f"The signed statement, the journal and all files are attached to this document as {name}.",
            f"Save the attachment (pdfdetach -saveall, or any reader), then: gpulease verify {name}",
            f"Journal: {predicate['journal']['records']} records, head {predicate['journal']['head']}.",
        ],
    )


def _part(title: str, rows: Iterable[str]) -> Iterator[tuple[int, bool, str]]:
    listed = list(rows)
    yield 12, True, title
    for row in listed[:ROWS]:
        yield 9, False, row
    if len(listed) != min(len(listed), ROWS) or not listed:
        yield 9, False, f"… and {len(listed) - ROWS} more, in the statement." if listed else "None."


def _paged(paragraphs: Iterable[tuple[int, bool, str]]) -> list[bytes]:
    pages: list[list[bytes]] = [[]]
    y = HIGH - EDGE
    for size, bold, text in paragraphs:
        lines = _wrapped(words.text(text, 1000), size, bold)
        y -= size if bold and y < HIGH - EDGE else 0
        if y - len(lines) * (size + 4) - (40 if bold else 0) < EDGE:  # a heading does not stand at the foot of a page alone
            pages.append([])
            y = HIGH - EDGE
        for line in lines:
            y -= size + 4
            pages[-1].append(b"BT /F%d %d Tf %d %d Td (%b) Tj ET" % (2 if bold else 1, size, EDGE, y, _escaped(line)))
    return [b"\n".join(page) for page in pages]


def _wrapped(text: str, size: int, bold: bool) -> list[str]:
    room = (WIDE - 2 * EDGE) * 1000 // size
    room = room * 93 // 100 if bold else room  # the bold one is wider by less than that
    lines, line = [], ""
    for word in text.split(" "):
        while _width(word) > room:  # an id or a digest longer than a line
            cut = next(n for n in range(len(word), 0, -1) if _width(word[:n]) <= room)
            lines += [line] if line else []
            lines, line, word = [*lines, word[:cut]], "", word[cut:]
        longer = f"{line} {word}" if line else word
        if _width(longer) > room:
            lines, longer = [*lines, line], word
        line = longer
    return [*lines, line]


def _width(text: str) -> int:
    return sum(WIDTHS[ord(c) - 32] if 32 <= ord(c) < 127 else 600 for c in text)


def _escaped(text: str) -> bytes:
    """A literal string: brackets and backslashes are the only letters that mean something in one."""
    plain = text.encode("cp1252", "replace")
    return plain.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)").replace(b"\r", b"").replace(b"\n", b"")


def _stream(head: bytes, data: bytes) -> bytes:
    return b"<< %b /Length %d >>\nstream\n%b\nendstream" % (head, len(data), data)


def _file(objects: Sequence[bytes]) -> bytes:
    made, places = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), []
    for n, one in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%b\nendobj\n" % (n, one)
    digest = hashlib.sha256(made).hexdigest()[:32].encode()
    start = len(made)
    made += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + b"".join(b"%010d 00000 n \n" % place for place in places)
    made += b"trailer\n<< /Size %d /Root 1 0 R /ID [<%b> <%b>] >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, digest, digest, start)
    return bytes(made)
