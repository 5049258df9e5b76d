"""What the engine leaves behind in its process."""

import gc
import weakref

from raylora.serve.own_engine import leave_what_is_loaded


class Loop:
    """Garbage that only a collector finds."""

    def __init__(self) -> None:
        self.own = self


def test_the_collector_passes_over_what_is_loaded_and_takes_what_comes_later() -> None:
    before = gc.get_freeze_count()
    leave_what_is_loaded()
    try:
        assert gc.get_freeze_count() > before
        later = weakref.ref(Loop())
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
