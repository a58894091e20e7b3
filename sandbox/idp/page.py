"""Reading a page: its text, its forms, and whether a script submits one at once."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"br", "hr", "img", "input", "link", "meta"}
_HIDDEN = {"script", "style", "title", "noscript"}


@dataclass(kw_only=True, slots=True)
class Button:
    """A button that submits its form."""

    text: str
    name: str
    value: str


@dataclass(kw_only=True, slots=True)
class Form:
    """A form as it stands; `fields` can be filled in."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[Button] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a page shows and offers."""

    title: str
    text: str
    forms: list[Form]
    submits_itself: bool


def read_page(source: str) -> Reading:
    """Read an HTML page."""
    reader = _Reader()
    reader.feed(source)
    reader.close()
    return Reading(
        title=" ".join("".join(reader.title).split()),
        text=" ".join(" ".join(reader.texts).split()),
        forms=reader.forms,
        submits_itself=bool(reader.forms) and any(".submit(" in script for script in reader.scripts),
    )


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.title: list[str] = []
        self.scripts: list[str] = []
        self.forms: list[Form] = []
        self._open: list[str] = []
        self._form: Form | None = None
        self._button: Button | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if "onload" in said:
            self.scripts.append(said["onload"])
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "form":
            self._form = Form(action=said.get("action", ""), method=said.get("method", "get").upper())
            self.forms.append(self._form)
        elif tag == "button" and self._form is not None and said.get("type", "submit") == "submit":
            self._button = Button(text="", name=said.get("name", ""), value=said.get("value", ""))
            self._form.buttons.append(self._button)
        elif tag == "input" and self._form is not None:
            self._input(self._form, said)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass
        if tag == "form":
            self._form = None
        elif tag == "button":
            self._button = None

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts.append(data)
        elif "title" in self._open:
            self.title.append(data)
        elif not _HIDDEN & set(self._open):
            self.texts.append(data)
        if self._button is not None:
            self._button.text = " ".join(f"{self._button.text} {data}".split())

    @staticmethod
    def _input(form: Form, said: dict[str, str]) -> None:
        kind, name = said.get("type", "text").lower(), said.get("name", "")
        if kind == "submit":
            form.buttons.append(Button(text=said.get("value", "Submit"), name=name, value=said.get("value", "")))
        elif name and (kind not in {"checkbox", "radio"} or "checked" in said):
            form.fields[name] = said.get("value", "on" if kind == "checkbox" else "")
