"""Words of a text in any script, as the data sets' words are cut, and beyond them what is typed rather than spoken.

Chinese and Japanese are written without spaces: each character is a word. An emoji, with its skin tone or joined to
others, is a word. A link, an address and a mention become `<url>`, `<email>` and `<user>`: their letters mean nothing
and may name a person. A hash tag is its word. Thai, Lao and Khmer, whose words only a dictionary can find, stay whole.
"""

from __future__ import annotations

import re
import unicodedata

LONGEST_WORD = 64  # letters; what is longer is no word, and is cut

# Vowel signs and accents are no letters to `\w`, but Hindi or Arabic words without them fall apart.
_MARKS = "".join(
    chr(c) for c in (*range(0x300, 0x2000), *range(0xA600, 0xAC00)) if unicodedata.category(chr(c))[0] == "M"
)
_ALONE = "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_SIGNS = (
    "\u231a\u231b\u23e9-\u23fa\u2600-\u2668\u2670-\u27bf\u2b1b\u2b1c\u2b50\u2b55"  # without subtitles' notes of music
)
_EMOJI = rf"{_SIGNS}\U0001f000-\U0001f1e5\U0001f200-\U0001faff"
_FLAG = "\U0001f1e6-\U0001f1ff"  # two letters make a flag
_DRESS = "\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # colour or not, skin tones, flags of regions
_JOINER = "\u200d"
_LETTER = rf"[^\W_{_ALONE}]"
_RUN = rf"{_LETTER}(?:{_LETTER}|[{_MARKS}\u200c\u200d])*"

_TOKEN = re.compile(
    r"(?P<url>(?:https?://|www\.)[!-~]+)"
    r"|(?P<email>[a-z0-9_.+-]{1,64}@[a-z0-9-]{1,64}(?:\.[a-z0-9-]{1,64}){1,8})"
    r"|(?P<user>(?<![a-z0-9_])@\w+)"
    rf"|(?P<emoji>[{_FLAG}]{{2}}|[{_EMOJI}](?:[{_DRESS}]|{_JOINER}[{_EMOJI}])*)"
    rf"|(?P<word>[{_ALONE}]|{_RUN}(?:'{_RUN})*)"
)


def tokens_of(text: str) -> list[str]:
    """Lower-case words of a text in its order, apostrophes inside kept, punctuation dropped."""
    plain = unicodedata.normalize("NFC", text).lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return [_token(match) for match in _TOKEN.finditer(plain)]


def _token(match: re.Match[str]) -> str:
    kind, written = match.lastgroup, match.group()
    if kind == "word":
        return written[:LONGEST_WORD]
    if kind == "emoji":
        return written.replace("\ufe0f", "").replace("\ufe0e", "")[:LONGEST_WORD]  # it is the same in colour
    return f"<{kind}>"
