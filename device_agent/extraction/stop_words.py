"""English words that carry grammar and no opinion. Written for this project; no published list is copied.

A sentence without "not" means its opposite and one without "very" or "but" means less, so words that deny, weaken,
strengthen or contrast are no stop words here, though most lists have them.
"""

from __future__ import annotations

ARTICLES = "a an the this that these those"
PRONOUNS = """
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
it its itself they them their theirs themselves one ones who whom whose which what
"""
VERBS = """
am is are was were be been being have has had having do does did doing done will would shall should can could may might
must
"""
PREPOSITIONS = """
about above across after against along among around as at before behind below beneath beside between by down during for
from in inside into near of off on onto out outside over past since through throughout to toward towards under until
up upon with within
"""
CONJUNCTIONS = "and or if because so than then while when where whether also there here how"
SHORT_FORMS = """
i'm i've i'd i'll we're we've we'd we'll you're you've you'd you'll he's he'd he'll she's she'd she'll it's it'd it'll
they're they've they'd they'll that's that'd that'll there's here's who's who'd who'll what's where's when's how's let's
"""

STOP_WORDS = frozenset(" ".join((ARTICLES, PRONOUNS, VERBS, PREPOSITIONS, CONJUNCTIONS, SHORT_FORMS)).split())


def is_stop_word(word: str) -> bool:
    """Whether a lower-case word may go; one with n't never is in the list."""
    return word in STOP_WORDS
