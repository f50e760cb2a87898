"""The one exception that is meant for a person."""


class Problem(Exception):
    """What is wrong and what to do about it; commands print the text without a traceback and exit with 1."""
