"""raylora: LoRA and QLoRA fine-tuning, tracking and serving on Ray."""

__version__ = "0.1.0"
