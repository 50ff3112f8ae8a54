"""Reads a page strictly, and says what a browser would load for it."""

from html.parser import HTMLParser

_VOID = {"meta", "br", "hr", "img", "input", "link"}
_LOADING = {"src", "href", "srcset", "data", "action", "xlink:href", "poster"}


class WebPage(HTMLParser):
    """
    Attributes:
        tags: all that were opened.
        text: what is shown.
        loads: addresses of other files.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.loads: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in _LOADING]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open and self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.text += data
        if self._open and self._open[-1] == "style":
            assert "url(" not in data and "@import" not in data
