"""The bars: every promise of the project as a measured line. `make bars-PART` runs one part."""
