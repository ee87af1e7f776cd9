"""Parts of an SMS (3GPP TS 23.038 and 23.040)."""

import pytest

from shared import sms


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 0),
        ("a" * 160, 1),
        ("a" * 161, 2),
        ("a" * 306, 2),
        ("a" * 307, 3),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("a" * 152 + "€" + "a" * 152, 3),
        ("晚" * 70, 1),
        ("晚" * 71, 2),
        ("晚" * 134, 2),
        ("晚" * 135, 3),
        ("晚" * 670, 10),
        ("晚" * 671, 11),
        ("a" * 70 + "晚", 2),
        ("😀" * 35, 1),
        ("😀" * 36, 2),
    ],
)
def test_parts(text: str, parts: int) -> None:
    assert sms.segments(text, cuts_pairs=True) == parts


def test_alphabet() -> None:
    assert len(sms.BASIC) == 127
    assert sms.is_gsm("Änderung: 5€ [ok]\n")
    assert not sms.is_gsm("ё")
    assert not sms.is_gsm("`")
