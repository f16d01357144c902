"""Personal data told by its look: e-mail, phone, card, bank account, national and network numbers in cells, and column names that promise some.

What has check digits is believed only when they are right. The contract's check `personal` and the removal of personal data both ask here.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

KINDS = ("email", "iban", "card", "national", "phone", "ip")
"""What cells are told by, the surest first: a cell with several is named after the first."""
HINTS = (*KINDS, "name", "birth", "address")
"""What a column's name may promise."""

_WORDS: tuple[tuple[str, str], ...] = (
    ("email", r"e_?mails?|mails?(_?addr(ess)?)?|courriel"),
    ("ip", r"ip|ip_?(v[46])?_?addr(ess)?|ipv[46]|client_ip|remote_addr"),
    ("iban", r"iban|bank_account|account_iban|kontonummer"),
    ("card", r"(credit_?|debit_?|payment_?)?card_?(no|nr|num|number)|cc_?(no|nr|num|number)|credit_?card|pan|kreditkarte"),
    ("phone", r"(tele)?phones?|tel|mobile|cell_?phone|fax|handy|telefon|telefono|phone_?(no|nr|number)|msisdn"),
    (
        "national",
        r"ssn|social_?(security|sec)(_?(no|nr|number|id))?|soc_sec_id|nino|nhs(_?(no|number))?|national_?(id|number|insurance)|passport(_?(no|nr|number))?"
        r"|tax_?(id|number)|steuer_?id|cpf|pesel|bsn|dni|nie|nir|aadhaar|personnummer|codice_?fiscale|driv(er|ing)_?licen[cs]e",
    ),
    ("birth", r"birth_?(date|day)|date_?of_?birth|dob|born|geburts(datum|tag)"),
    (
        "name",
        r"(first|last|full|given|family|maiden|middle|sur|customer|person|patient|employee|cardholder|holder|contact|user|vor|nach)_?name"
        r"|surname|prenom|apellidos?",
    ),
    ("address", r"(street|home|postal|mailing|billing|shipping)?_?address(_?[0-9])?|street(_?(name|no|nr|number))?|strasse|adresse"),
)
_HINTS = [(kind, re.compile(rf"(?:^|_)(?:{words})(?:$|_)")) for kind, words in _WORDS]

_EMAIL = r"(?i)[a-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}\b"
_IBAN = r"(?i)\b[a-z]{2}[0-9]{2}(?:[ ]?[a-z0-9]{4}){2,7}(?:[ ]?[a-z0-9]{1,4})?\b"
_CARD = r"(?:^|[^\w.,+-])(?:[0-9][ -]?){12,18}[0-9]\b"
_IP4 = r"(?:^|[^\w.])(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(?:$|[^\w.])"
_IP6 = r"(?i)(?:^|[^\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?:$|[^\w:])"
_PHONE = (
    r"(?:^|[^\w+.,])(?:\+[0-9]{1,3}|00[1-9][0-9]{0,2})(?:[ ./-]?\(?[0-9]{1,5}\)?){2,6}(?:$|[^\w])"
    r"|(?:^|[^\w+.,])(?:\([0-9]{2,5}\)[ -]?|[0-9]{3}[-. ])[0-9]{3}[-. ][0-9]{4}(?:$|[^\w])"
)
_PHONE_BARE = r"^\s*[+(]?[0-9][0-9 ()./-]{5,18}[0-9]\s*$"
_IBAN_LENGTHS = dict(
    re.findall(
        r"(..):(\d+)",
        "AD:24 AE:23 AL:28 AT:20 AZ:28 BA:20 BE:16 BG:22 BH:22 BR:29 BY:28 CH:21 CR:22 CY:28 CZ:24 DE:22 DK:18 DO:28 EE:20 EG:29 ES:24 FI:18 FO:18 FR:27 "
        "GB:22 GE:22 GI:23 GL:18 GR:27 GT:28 HR:21 HU:28 IE:22 IL:23 IS:26 IT:27 JO:30 KW:30 KZ:20 LB:28 LI:21 LT:20 LU:20 LV:21 MC:27 MD:24 ME:22 MK:19 "
        "MR:27 MT:31 MU:30 NL:18 NO:15 PK:24 PL:28 PS:29 PT:25 QA:29 RO:24 RS:22 SA:24 SE:24 SI:19 SK:24 SM:27 TN:24 TR:26 UA:29 VA:22 VG:24 XK:20",
    )
)


def column_hint(name: str) -> str | None:
    """What a column's name promises, one of `HINTS`; None: nothing personal.

    >>> column_hint("Customer E-Mail"), column_hint("ipAddress"), column_hint("amount")
    ('email', 'ip', None)
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    plain = re.sub(r"[^a-z0-9]+", "_", words.lower().replace("ß", "ss")).strip("_")
    return next((kind for kind, pattern in _HINTS if pattern.search(plain)), None)


def detect(values: "pl.Series", hint: str | None = None) -> "pl.Series":
    """For each cell the first of `KINDS` found anywhere in it, else null; text, and whole numbers by their digits (other types: nothing is found).

    ``hint`` (see `column_hint`) also lets pass what bare digits alone would not prove: nine digits with one check digit, a phone number without marks.
    """
    import polars as pl

    nothing = pl.Series(values.name, [None] * 0, dtype=pl.String).extend_constant(None, len(values))
    if values.dtype.is_integer():
        values = values.cast(pl.String)
    if values.dtype != pl.String or not values.len():
        return nothing
    found = nothing
    first = (hint,) if hint in KINDS else ()
    for kind in (*first, *(k for k in KINDS if k not in first)):
        mask = _FINDERS[kind](values, hint == kind).fill_null(False)
        if mask.any():
            found = found.zip_with(~mask | found.is_not_null(), pl.Series([kind]).extend_constant(kind, len(values) - 1))
    return found.rename(values.name)


def masked(values: "pl.Series", hint: str | None = None) -> "pl.Series":
    """Text with every cell in which something personal is found replaced by its kind: ``(email)``."""
    import polars as pl

    kinds = detect(values, hint)
    if kinds.null_count() == len(kinds):
        return values
    return pl.select(pl.when(pl.lit(kinds).is_null()).then(pl.lit(values.cast(pl.String))).otherwise("(" + pl.lit(kinds) + ")")).to_series().rename(values.name)


# Finders: (N,) text -> (N,) booleans; ``sure`` says that the column's name promises the kind.


def _emails(values: "pl.Series", sure: bool) -> "pl.Series":
    near = values.str.contains("@", literal=True)
    return near & values.str.contains(_EMAIL) if near.any() else near


def _ibans(values: "pl.Series", sure: bool) -> "pl.Series":
    return _any_candidate(values, _IBAN, lambda texts: iban_ok([re.sub(r"\s", "", t).upper() for t in texts]))


def _cards(values: "pl.Series", sure: bool) -> "pl.Series":
    return _any_candidate(values, _CARD, lambda texts: card_ok([re.sub(r"\D", "", t) for t in texts]))


def _nationals(values: "pl.Series", sure: bool) -> "pl.Series":
    import polars as pl

    found = pl.Series([False] * 0, dtype=pl.Boolean).extend_constant(False, len(values))
    for pattern, check, strong in _NATIONALS:
        if strong or sure:
            found = found | _any_candidate(values, pattern, check).fill_null(False)
    return found


def _phones(values: "pl.Series", sure: bool) -> "pl.Series":
    found = _any_candidate(values, _PHONE, _phone_length)
    return found | _any_candidate(values, _PHONE_BARE, _phone_length) if sure else found


def _phone_length(texts: list[str]) -> list[bool]:
    return [8 <= len(re.sub(r"\D", "", re.sub(r"^\D*00", "", t))) <= 15 or (7 <= len(re.sub(r"\D", "", t)) <= 15 and "+" not in t) for t in texts]


def _ips(values: "pl.Series", sure: bool) -> "pl.Series":
    return values.str.contains(_IP4).fill_null(False) | _any_candidate(values, _IP6, lambda texts: [_is_ip6(t) for t in texts]).fill_null(False)


def _is_ip6(text: str) -> bool:
    text = re.sub(r"^[^0-9a-fA-F:]|[^0-9a-fA-F:]$", "", text)
    try:
        return text.count(":") >= 2 and any(c in "0123456789abcdefABCDEF" for c in text) and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


_FINDERS: dict[str, "Callable[[pl.Series, bool], pl.Series]"] = {
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "national": _nationals,
    "phone": _phones,
    "ip": _ips,
}


def _any_candidate(values: "pl.Series", pattern: str, holds: "Callable[[list[str]], list[bool]]") -> "pl.Series":
    """Whether any piece of a cell that fits the pattern holds; each distinct cell that fits is looked at once."""
    near = values.str.contains(pattern).fill_null(False)
    if not near.any():
        return near
    cells = values.filter(near).unique()
    pieces = cells.str.extract_all(pattern).to_list()
    flat = [p for row in pieces for p in row]
    verdicts = iter(holds(flat))
    good = [cell for cell, row in zip(cells.to_list(), pieces, strict=True) if sum(next(verdicts) for _ in row)]
    import polars as pl

    return near & values.is_in(pl.Series(good, dtype=pl.String).implode())


# Check digits. Lists of text in, booleans out.


def _digits(texts: list[str], width: int) -> NDArray[np.int64]:
    """(M, width) digits, right-aligned, zeros before."""
    padded = "".join(t.rjust(width, "0")[-width:] for t in texts)
    return (np.frombuffer(padded.encode("ascii", "replace"), np.uint8).reshape(len(texts), width) - 48).astype(np.int64)


def luhn_ok(texts: list[str]) -> NDArray[np.bool_]:
    """Digits whose last one is right by ISO/IEC 7812-1 annex B. (M,)"""
    digits = _digits(texts, 20)
    doubled = digits[:, ::-1].copy()
    doubled[:, 1::2] = doubled[:, 1::2] * 2 - 9 * (doubled[:, 1::2] > 4)
    return np.asarray(doubled.sum(1) % 10 == 0)


_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11,13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12,15}|35(?:2[89]|[3-8]\d)\d{12,15}|62\d{14,17}"
)


def card_ok(texts: list[str]) -> list[bool]:
    """Digits of a known issuer's length and prefix with a right check digit."""
    return [bool(ok and _ISSUERS.fullmatch(t) and len(set(t)) > 1) for t, ok in zip(texts, luhn_ok(texts), strict=True)]


def iban_ok(texts: list[str]) -> list[bool]:
    """Account numbers of ISO 13616: the country's length, and 1 modulo 97."""
    return [_IBAN_LENGTHS.get(t[:2]) == str(len(t)) and int("".join(str(int(c, 36)) for c in t[4:] + t[:4])) % 97 == 1 for t in texts]


def _weighted(weights: tuple[int, ...], rule: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]) -> "Callable[[list[str]], list[bool]]":
    """A check by a weighted sum over the digits: ``rule(digits, sums)``."""

    def check(texts: list[str]) -> list[bool]:
        plain = [re.sub(r"\D", "", t) for t in texts]
        fits = [len(p) == len(weights) and len(set(p)) > 1 for p in plain]
        digits = _digits([p if ok else "" for p, ok in zip(plain, fits, strict=True)], len(weights))
        return [bool(a and b) for a, b in zip(fits, rule(digits, digits @ np.array(weights)), strict=True)]

    return check


def _date_ok(digits: NDArray[np.int64], months: tuple[int, ...] = (0, 20, 40, 60, 80)) -> NDArray[np.bool_]:
    month, day = digits[:, 2] * 10 + digits[:, 3], digits[:, 4] * 10 + digits[:, 5]
    return np.asarray(np.isin(month, [m + k for m in range(1, 13) for k in months]) & (day >= 1) & (day <= 31))


def _ssn(texts: list[str]) -> list[bool]:
    found = [re.sub(r"\D", "", t) for t in texts]
    return [len(t) == 9 and t[:3] not in ("000", "666") and t[0] != "9" and t[3:5] != "00" and t[5:] != "0000" for t in found]


def _tax_de(texts: list[str]) -> list[bool]:
    """ISO 7064 MOD 11,10; of the first ten digits exactly one comes twice or thrice."""

    def one(text: str) -> bool:
        d = [int(c) for c in re.sub(r"\D", "", text)]
        if len(d) != 11 or d[0] == 0 or max(d[:10].count(k) for k in range(10)) not in (2, 3):
            return False
        p = 10
        for digit in d[:10]:
            p = ((p + digit) % 10 or 10) * 2 % 11
        return (11 - p) % 10 == d[10]

    return [one(t) for t in texts]


def _nir_fr(texts: list[str]) -> list[bool]:
    found = [re.sub(r"[^0-9AB]", "", t.upper()).replace("2A", "19", 1).replace("2B", "18", 1) for t in texts]
    return [len(t) == 15 and t.isdigit() and (int(t[:13]) + int(t[13:])) % 97 == 0 and 1 <= int(t[3:5]) <= 42 for t in found]


def _dni_es(texts: list[str]) -> list[bool]:
    found = [re.sub(r"[^0-9A-Z]", "", t.upper()) for t in texts]
    return ["TRWAGMYFPDXBNJZSQVHLCKE"[int(t[:-1].translate(str.maketrans("XYZ", "012"))) % 23] == t[-1] for t in found]


def _fiscale_it(texts: list[str]) -> list[bool]:
    few = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
    odd = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (*few, *few, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23), strict=True))
    found = [re.sub(r"[^0-9A-Z]", "", t.upper()) for t in texts]

    def one(t: str) -> bool:
        total = sum(odd[c] if i % 2 == 0 else int(c, 36) - (10 if c.isalpha() else 0) for i, c in enumerate(t[:15]))
        return chr(65 + total % 26) == t[15]

    return [one(t) for t in found]


def _nhs(digits: NDArray[np.int64], sums: NDArray[np.int64]) -> NDArray[np.bool_]:
    rest = (11 - sums % 11) % 11
    return np.asarray((rest == digits[:, 9]) & (rest != 10))


def _cpf(digits: NDArray[np.int64], sums: NDArray[np.int64]) -> NDArray[np.bool_]:
    first = (digits[:, :9] @ np.arange(10, 1, -1)) * 10 % 11 % 10
    second = (digits[:, :10] @ np.arange(11, 1, -1)) * 10 % 11 % 10
    return np.asarray((first == digits[:, 9]) & (second == digits[:, 10]))


def _china(texts: list[str]) -> list[bool]:
    weights = [2**i % 11 for i in range(17, 0, -1)]
    found = [re.sub(r"[^0-9X]", "", t.upper()) for t in texts]
    return [len(t) == 18 and "10X98765432"[sum(int(c) * w for c, w in zip(t, weights, strict=False)) % 11] == t[17] for t in found]


def _sweden(texts: list[str]) -> list[bool]:
    found = [re.sub(r"\D", "", t)[-10:] for t in texts]
    return [bool(ok and _date_ok(_digits([t], 10))[0]) for t, ok in zip(found, luhn_ok(found), strict=True)]


_NATIONALS: tuple[tuple[str, "Callable[[list[str]], list[bool]]", bool], ...] = (
    (r"(?:^|[^\w-])[0-9]{3}-[0-9]{2}-[0-9]{4}(?:$|[^\w-])", _ssn, True),  # United States, as it is written
    (r"(?:^|[^\w-])[0-9]{9}\b", _ssn, False),
    (r"(?:^|[^\w.,-])[0-9]{11}\b", _weighted((1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), lambda d, s: np.asarray((s % 10 == 0) & _date_ok(d))), True),  # Poland, PESEL
    (r"(?:^|[^\w.,-])[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}\b", _weighted((0,) * 11, _cpf), True),  # Brazil, CPF
    (r"(?:^|[^\w.,-])[0-9]{11}\b", _weighted((0,) * 11, _cpf), False),
    (r"(?:^|[^\w.,-])[1-9][0-9](?: ?[0-9]{3}){3}\b", _tax_de, False),  # Germany, tax number of a person
    (r"(?i)(?:^|[^\w.,-])[12] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[ab]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}\b", _nir_fr, True),  # France, NIR
    (r"(?i)\b(?:[0-9]{8}|[xyz][0-9]{7})-?[a-z]\b", _dni_es, True),  # Spain, DNI and NIE
    (r"(?i)\b[a-z]{6}[0-9]{2}[abcdehlmprst][0-9]{2}[a-z][0-9]{3}[a-z]\b", _fiscale_it, True),  # Italy, codice fiscale
    (r"(?:^|[^\w.,-])[0-9]{3} [0-9]{3} [0-9]{4}\b", _weighted((10, 9, 8, 7, 6, 5, 4, 3, 2, 0), _nhs), True),  # United Kingdom, NHS
    (r"(?:^|[^\w.,-])[0-9]{10}\b", _weighted((10, 9, 8, 7, 6, 5, 4, 3, 2, 0), _nhs), False),
    (r"(?i)\b[abceghj-prstw-z][abceghj-nprstw-z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[abcd]\b", lambda texts: [True] * len(texts), True),  # UK, NI number
    (r"(?:^|[^\w.,-])[0-9]{9}\b", _weighted((9, 8, 7, 6, 5, 4, 3, 2, -1), lambda d, s: np.asarray(s % 11 == 0)), False),  # Netherlands, BSN
    (r"(?i)(?:^|[^\w.,-])[1-6][0-9]{5}(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9]{4}[0-9x]\b", _china, True),  # China, resident number
    (r"(?:^|[^\w.,-])(?:19|20)?[0-9]{6}[-+][0-9]{4}\b", _sweden, True),  # Sweden, personnummer
)
"""Pattern, check, and whether that is enough without a hint in the column's name (bare digits with one check digit are not)."""
