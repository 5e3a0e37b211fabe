"""What a page of a report refers to, its text, and tags that are not closed."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects what a page refers to, its text, and tags that are not closed in order.

    Args:
        text: the page.
        unclosed: tags that may be left open.
    """

    def __init__(self, text: str, *, unclosed: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.unclosed = unclosed
        self.sources: list[str] = []
        self.links: list[str] = []
        self.others: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name == "src"]
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.others += [value or "" for name, value in attrs if name in ("data", "action", "srcset")]
        if tag not in VOID and tag not in self.unclosed:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.unclosed and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.words.append(data)

    @property
    def references(self) -> list[str]:
        """All that the page refers to."""
        return [*self.sources, *self.links, *self.others]

    @property
    def text(self) -> str:
        """The words that a reader sees."""
        return " ".join(" ".join(self.words).split())
