"""What must be equal on every family of models: losses of packed documents, and masks."""

from collections.abc import Iterator, Sequence

from benchmarks.bars.bar import Bar, at_most, failed, holds
from benchmarks.train.cases import Case, run_cases

PACKING = "tests/jobs/train/test_loss.py::test_packed_documents_lose_what_they_lose_one_by_one"
MASKS = "tests/jobs/data/test_masks.py::test_supervised_tokens_decode_to_exactly_the_answers"
TESTS_S = 600.0
CLOSE = 1e-5


def measure_packing() -> Iterator[Bar]:
    """fp32 loss of a packed batch against its documents one by one, on a model of each family."""
    cases = run_cases(PACKING, TESTS_S)
    yield _all_pass("packed loss and gradients", cases, "families")
    name = "packed loss against one by one"
    figures = {case.recorded["difference"]: case.name for case in cases if case.recorded}
    if not figures:
        yield failed(name, f"<= {CLOSE:g}", "no case came as far as its figure")
        return
    worst = max(figures)
    yield at_most(name, [worst], CLOSE, "", f"relative, the largest: {figures[worst]}")


def measure_masks() -> Iterator[Bar]:
    """Supervised tokens decode to exactly the answers: each shape with each family's template."""
    cases = run_cases(MASKS, TESTS_S)
    yield _all_pass("masks decode to the answers", cases, "shapes x templates")


def _all_pass(name: str, cases: Sequence[Case], what: str) -> Bar:
    bad = [case for case in cases if case.fault]
    detail = f"{bad[0].name}: {bad[0].fault}" if bad else ""
    return holds(name, len(cases) - len(bad), len(cases), what, detail)
