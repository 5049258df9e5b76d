"""What a terminal shows of a job, and what is kept of it."""

from rich.console import Console

from raylora.cli import live
from raylora.cli.event_text import clock, plain, scored
from raylora.cli.progress import Progress
from raylora.cluster.events import StageEvent, StepEvent

STEP = StepEvent(2, 4, 0.5, 1e-3, 1.0, 1234.0, 500.0, 2_000_000_000, 90.0)


def test_a_terminal_gets_a_moving_display() -> None:
    progress = Progress()
    for event in (StageEvent("base", "tiny"), StageEvent("train"), STEP):
        progress.see(event)
    console = Console(width=100, record=True)
    panel = live._Panel(progress)
    with console.capture() as shown:
        console.print(panel._render())
    for text in ("train", "2/4", "ETA 1:30"):
        assert text in shown.get()


def test_a_stage_takes_until_the_next_one_and_never_less_than_nothing() -> None:
    progress = Progress(_since=100.0)
    for stage, at in (("data", 103.0), ("train", 101.0), ("data", 111.0)):
        progress.see(StageEvent(stage, time=at))
    progress.close_stage(112.0)
    assert progress.stage_seconds == {"starting": 3.0, "data": 1.0, "train": 10.0}


def test_figures_read_as_people_write_them() -> None:
    assert plain(STEP).startswith("step 2/4  loss 0.5000  lr 1.00e-03")
    assert [scored("exact_match", 0.5), scored("loss", 2.5)] == ["50.0%", "2.5"]
    assert scored("loss", float("nan")) == "missing"
    assert [clock(90), clock(3725), clock(float("inf"))] == ["1:30", "1:02:05", "unknown"]
