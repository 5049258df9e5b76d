from pathlib import Path

from benchmarks.sweep.grid import Grid, key_of, named

from raylora.config.sweep_rules import changed, with_settings
from raylora.config.sweep_spec import SweepSpec
from raylora.sweeps.sources import source_of

GRID = Grid((4, 8), (3e-4, 1e-3), steps=6, rows_a_step=2)


def test_a_sweep_proposes_what_peers_are_given(tmp_path: Path):
    spec = SweepSpec.model_validate(GRID.spec(Path("rows.jsonl"), scheduler="none"))
    assert source_of(spec, tmp_path, []).foreseen == GRID.settings()
    assert len(GRID) == 4


def test_settings_of_a_trial_differ_from_the_base_in_every_key():
    base = SweepSpec.model_validate(GRID.spec(Path("rows.jsonl"))).base
    for trial in GRID.settings():
        assert changed(base, with_settings(base, trial)) == trial


def test_trials_of_two_runs_are_matched_by_rank_and_rate():
    keys = {key_of(settings) for settings in GRID.settings()}
    assert keys == {(4, 3e-4), (4, 1e-3), (8, 3e-4), (8, 1e-3)}
    assert named(GRID.settings()[0]) == "r=4 at 0.0003"
