"""Attacks on the way: what each tampering does to a response that is signed already."""

import copy
import re
from collections.abc import Callable

from lxml import etree

from sandbox.idp.claims import assertion_of, email_values, group_values
from sandbox.idp.tamper import Tamper
from sandbox.idp.wheel import SAML, SAMLP, Element

_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_EVIL = "mallory@example.org"


def _changed_email(root: Element) -> None:
    email_values(root)[0].text = _EVIL


def _changed_name_id(root: Element) -> None:
    root.find(f".//{SAML}NameID").text = "mallory"


def _changed_group(root: Element) -> None:
    group_values(root)[0].text = "admins"


def _changed_signature(root: Element) -> None:
    value = root.find(f"{_DS}Signature/{_DS}SignatureValue")
    value.text = ("A" if value.text.strip()[0] != "A" else "B") + value.text.strip()[1:]


def _stripped(root: Element) -> None:
    for signature in list(root.iter(f"{_DS}Signature")):
        signature.getparent().remove(signature)


def _split(element: Element, node: Element) -> None:
    """Put a comment or instruction into the text: "ana@example.com" becomes "ana<!---->@example.com"."""
    text = element.text
    element.text, node.tail = text[:3], text[3:]
    element.insert(0, node)


def _comment_in_name_id(root: Element) -> None:
    _split(root.find(f".//{SAML}NameID"), etree.Comment(""))


def _comment_in_email(root: Element) -> None:
    _split(email_values(root)[0], etree.Comment(""))


def _instruction_in_email(root: Element) -> None:
    _split(email_values(root)[0], etree.ProcessingInstruction("x"))


def _forged(root: Element) -> Element:
    """An unsigned assertion about somebody else, to be smuggled in beside the signed one."""
    forged = copy.deepcopy(assertion_of(root))
    forged.set("ID", "_forged")
    _stripped(forged)
    forged.find(f".//{SAML}NameID").text = "mallory"
    email_values(forged)[0].text = _EVIL
    return forged


def _forged_response(root: Element) -> None:
    """XSW 1, 2: a forged response whose signature still refers to the original one, kept inside."""
    original = copy.deepcopy(root)
    forged = _forged(root)
    signature = root.find(f"{_DS}Signature")
    root.replace(assertion_of(root), forged)
    root.set("ID", "_forged-response")
    holder = etree.SubElement(signature, f"{_DS}Object")
    holder.append(original)


def _signed_in_extensions(root: Element) -> None:
    """XSW 7: the signed assertion hides in Extensions, a forged one takes its place."""
    forged = _forged(root)
    signed = assertion_of(root)
    root.replace(signed, forged)
    extensions = etree.Element(f"{SAMLP}Extensions")
    extensions.append(signed)
    root.find(f"{SAML}Issuer").addnext(extensions)


def _signed_in_object(root: Element) -> None:
    """XSW 8: the forged assertion carries the signature, with the signed one in its Object."""
    forged = _forged(root)
    signed = assertion_of(root)
    signature = copy.deepcopy(signed.find(f"{_DS}Signature"))
    root.replace(signed, forged)
    _stripped(signed)
    etree.SubElement(signature, f"{_DS}Object").append(signed)
    forged.find(f"{SAML}Issuer").addnext(signature)


def _forged_first(root: Element) -> None:
    """XSW 3: a forged assertion before the signed one."""
    assertion_of(root).addprevious(_forged(root))


def _forged_last(root: Element) -> None:
    """XSW 4, flat: a forged assertion after the signed one."""
    assertion_of(root).addnext(_forged(root))


def _forged_around(root: Element) -> None:
    """XSW 4: the signed assertion sits inside the forged one."""
    forged = _forged(root)
    signed = assertion_of(root)
    root.replace(signed, forged)
    forged.append(signed)


def _same_id(root: Element) -> None:
    """A forged assertion with the id of the signed one: two readers may pick different ones."""
    forged = _forged(root)
    forged.set("ID", assertion_of(root).get("ID"))
    assertion_of(root).addprevious(forged)


WIRE: dict[Tamper, Callable[[Element], None]] = {
    Tamper.CHANGED_EMAIL: _changed_email,
    Tamper.CHANGED_NAME_ID: _changed_name_id,
    Tamper.CHANGED_GROUP: _changed_group,
    Tamper.CHANGED_SIGNATURE: _changed_signature,
    Tamper.STRIPPED_SIGNATURES: _stripped,
    Tamper.COMMENT_IN_NAME_ID: _comment_in_name_id,
    Tamper.COMMENT_IN_EMAIL: _comment_in_email,
    Tamper.INSTRUCTION_IN_EMAIL: _instruction_in_email,
    Tamper.WRAPPED_FORGED_RESPONSE: _forged_response,
    Tamper.WRAPPED_SIGNED_IN_EXTENSIONS: _signed_in_extensions,
    Tamper.WRAPPED_SIGNED_IN_OBJECT: _signed_in_object,
    Tamper.WRAPPED_FORGED_FIRST: _forged_first,
    Tamper.WRAPPED_FORGED_LAST: _forged_last,
    Tamper.WRAPPED_FORGED_AROUND: _forged_around,
    Tamper.WRAPPED_SAME_ID: _same_id,
}


def _with_entity(declaration: bytes) -> Callable[[bytes], bytes]:
    return lambda text: (
        b"<!DOCTYPE r [<!ENTITY who " + declaration + b">]>" + re.sub(rb"</\w+:NameID>", rb"&who;\g<0>", text)
    )


BYTES: dict[Tamper, Callable[[bytes], bytes]] = {
    Tamper.DOCTYPE: lambda text: b"<!DOCTYPE r>" + text,
    Tamper.ENTITY: _with_entity(b'"mallory"'),
    Tamper.EXTERNAL_ENTITY: _with_entity(b'SYSTEM "file:///etc/hostname"'),
    Tamper.TRUNCATED: lambda text: text[: len(text) // 2],
    Tamper.NOT_XML: lambda _: b"ana@example.com says hello",
    Tamper.HUGE: lambda text: text + b" " * 5_000_000,
    Tamper.DEEP: lambda _: b"<a>" * 10_000 + b"</a>" * 10_000,
}
