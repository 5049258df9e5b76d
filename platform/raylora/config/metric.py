"""What an answer can be measured by, in the words of a configuration."""

from enum import StrEnum

OWN = ":"
"""Between module and function in the name of a metric that is the user's: my_metrics:polite."""


class Metric(StrEnum):
    """A metric that raylora has. Scores of rows are between 0 and 1, but for losses."""

    EXACT_MATCH = "exact_match"
    """The same text, or the same JSON value where the reference is JSON."""
    JSON_VALID = "json_valid"
    JSON_FIELDS = "json_fields"
    """Share of the reference's fields that are right."""
    TOKEN_F1 = "token_f1"
    """Words shared with the reference: the harmonic mean of precision and recall (SQuAD)."""
    ROUGE_L = "rouge_l"
    """F1 of the longest common subsequence of words (Lin, 2004), by the package rouge-score."""
    REGEX_MATCH = "regex_match"
    """Whether the data set's pattern is found in the answer."""
    CHOICE_ACCURACY = "choice_accuracy"
    """Whether the reference is the likeliest of the row's options, its end token included."""
    LOSS = "loss"
    """Cross entropy of the reference answer's tokens, as in training."""
    PERPLEXITY = "perplexity"
    """exp of the loss."""

    @property
    def is_generated(self) -> bool:
        """Whether it looks at a generated answer; the others ask how likely given ones are."""
        return self not in (Metric.CHOICE_ACCURACY, Metric.LOSS, Metric.PERPLEXITY)


def is_own(name: str) -> bool:
    """Whether a metric's name is the import path of a function of the user's."""
    return OWN in name


def needs_answer(name: str) -> bool:
    """Whether a metric looks at a generated answer."""
    return is_own(name) or Metric(name).is_generated


def lower_is_better(name: str) -> bool:
    """Whether less of a metric is better."""
    return name in (Metric.LOSS, Metric.PERPLEXITY)
