"""Names for requests and answers: random, and cheaper than uuid4, which asks the kernel."""

import random

_random = random.Random()


def new_id() -> str:
    """32 hexadecimal digits."""
    return f"{_random.getrandbits(128):032x}"
