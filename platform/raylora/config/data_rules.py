"""Rules about rows: how long, how many, how they are read."""

from raylora.config.data_spec import BUNDLED, Ingest, Order, Packing, Shape
from raylora.config.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        "held-out rows of another task",
        lambda s: (
            (s.data.validation or "").startswith(BUNDLED)
            and not any(part.source.startswith(BUNDLED) for part in s.data.sources)
        ),
        "data.validation holds rows of the bundled task, and data.train teaches another",
        "name held-out rows of your own, or write data.validation=null, alone or with "
        "data.validation_ratio=0.05",
    ),
    Rule(
        "rows longer than the context",
        lambda s: s.data.max_length > s.model.max_length,
        "data.max_length is longer than model.max_length",
        "lower the first or raise the second",
    ),
    Rule(
        "packs shorter than rows",
        lambda s: s.data.pack_length is not None and s.data.pack_length < s.data.max_length,
        "data.pack_length is shorter than data.max_length, so that a row may not fit",
        "raise the first or lower the second",
    ),
    Rule(
        "pack length without packing",
        lambda s: s.data.pack_length is not None and s.data.packing is Packing.NONE,
        "data.pack_length is set, and data.packing makes no packs",
        "write data.packing=best_fit, or data.pack_length: null",
    ),
    Rule(
        "batch smaller than the workers",
        lambda s: s.training.global_batch_size < s.workers.most,
        "training.global_batch_size is smaller than workers.num_workers: some would have no row",
        "raise the first or lower the second",
    ),
    Rule(
        "streaming without an end",
        lambda s: s.data.ingest is Ingest.STREAMING and s.training.max_steps is None,
        "data.ingest=streaming does not know how many rows come, and training.max_steps is null",
        "set training.max_steps",
    ),
    Rule(
        "streaming cannot look ahead",
        lambda s: (
            s.data.ingest is Ingest.STREAMING
            and (s.data.packing is not Packing.NONE or s.data.order is not Order.SHUFFLED)
        ),
        "data.ingest=streaming sees few rows at a time, too few for data.packing=best_fit or "
        "data.order=length_grouped",
        "write data.ingest=local, or data.packing=none and data.order=shuffled",
    ),
    Rule(
        "streaming cannot hold out",
        lambda s: s.data.ingest is Ingest.STREAMING and s.data.validation_ratio > 0,
        "data.ingest=streaming cannot hold out a share of rows it has not seen "
        "(data.validation_ratio)",
        "name held-out rows in data.validation",
    ),
    Rule(
        "answers to plain text",
        lambda s: s.training.validation_answers > 0 and s.data.shape is Shape.TEXT,
        "training.validation_answers asks held-out questions, and rows of data.shape=text have "
        "none",
        "write training.validation_answers=0; the validation loss needs none",
    ),
)
