"""The one way SAML XML is parsed: no DTD, no entities, no comments, no network."""

from typing import TypeAlias

from lxml import etree
from lxml.etree import _Element

Element: TypeAlias = _Element

SAMLP = "{urn:oasis:names:tc:SAML:2.0:protocol}"
SAML = "{urn:oasis:names:tc:SAML:2.0:assertion}"
MD = "{urn:oasis:names:tc:SAML:2.0:metadata}"
DS = "{http://www.w3.org/2000/09/xmldsig#}"
XENC = "{http://www.w3.org/2001/04/xmlenc#}"

_ID_NAMES = ("ID", "Id", "id", "{http://www.w3.org/XML/1998/namespace}id")


class UnsafeXmlError(Exception):
    """The XML is malformed or uses what SAML messages never need; `reason` is a short code."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def parse(text: bytes, *, comments: bool = False) -> Element:
    """Parse XML from outside; raises UnsafeXmlError for a DOCTYPE, an entity, a comment, or a repeated id.

    A comment inside a name makes one reader see "ana@example.com" and the other "ana@example.com.evil.org",
    so none is let in anywhere (`comments` lets them pass, for metadata that an admin wrote).
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    root = _parsed(text, parser)
    if root.getroottree().docinfo.doctype:
        raise UnsafeXmlError("doctype")
    if not comments and _has_more_than_elements(root):
        raise UnsafeXmlError("comment")
    _refuse_repeated_ids(root)
    return root


def serialised(root: Element) -> str:
    """Write a parsed tree out again, so that the next parser cannot read it differently."""
    text: str = etree.tostring(root, encoding="unicode")
    return text


def _parsed(text: bytes, parser: etree.XMLParser) -> Element:
    try:
        return etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError):
        pass
    # Raised outside the except block: lxml's message quotes the document.
    raise UnsafeXmlError("not_xml")


def _has_more_than_elements(root: Element) -> bool:
    beside = [*root.itersiblings(preceding=True), *root.itersiblings()]
    return bool(beside) or any(not isinstance(node.tag, str) for node in root.iter())


def _refuse_repeated_ids(root: Element) -> None:
    seen: set[str] = set()
    for node in root.iter(etree.Element):
        for value in (node.get(name) for name in _ID_NAMES):
            if value is not None and value in seen:
                raise UnsafeXmlError("repeated_id")
            if value is not None:
                seen.add(value)
