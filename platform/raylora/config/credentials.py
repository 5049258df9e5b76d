"""Addresses as people may see them."""

import re

CREDENTIALS = re.compile(r"://[^/@\s]+@")


def shown(text: str) -> str:
    """A URI, or a message with URIs in it, as people may see it: no user name, no password."""
    return CREDENTIALS.sub("://", text)
