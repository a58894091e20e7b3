"""The only cryptographic algorithms Passport accepts in SAML: SHA-256 and up, AES, RSA-OAEP."""

_DSIG = "http://www.w3.org/2000/09/xmldsig#"
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"
_ENC = "http://www.w3.org/2001/04/xmlenc#"
_ENC11 = "http://www.w3.org/2009/xmlenc11#"

RSA_SHA256 = f"{_MORE}rsa-sha256"

SIGNATURES = frozenset(f"{_MORE}{key}-sha{size}" for key in ("rsa", "ecdsa") for size in (256, 384, 512))
DIGESTS = frozenset({f"{_ENC}sha256", f"{_MORE}sha384", f"{_ENC}sha512"})

EXCLUSIVE_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"
CANONICALISATIONS = frozenset({EXCLUSIVE_C14N})
ENVELOPED = f"{_DSIG}enveloped-signature"
TRANSFORMS = frozenset({ENVELOPED, EXCLUSIVE_C14N})

AES = (f"{_ENC11}aes256-gcm", f"{_ENC11}aes128-gcm", f"{_ENC}aes256-cbc", f"{_ENC}aes128-cbc")
# No RSA 1.5: its padding tells an attacker, guess by guess, what the key was.
KEY_TRANSPORTS = (f"{_ENC}rsa-oaep-mgf1p", f"{_ENC11}rsa-oaep")
