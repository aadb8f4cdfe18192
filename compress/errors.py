"""What goes wrong, in kinds that a caller can tell apart. Every message is one sentence: rule, value, place."""


class CompressError(Exception):
    """Base of all errors this package raises on purpose; its text is meant for the user as it stands."""


class ConfigError(CompressError, ValueError):
    """An argument, option or recipe breaks a rule."""


class DataError(CompressError):
    """A data set is missing, empty or not what it must be."""


class ModelError(CompressError):
    """A model cannot be traced, pruned or run, or puts out something that cannot be used."""


class ArtifactError(CompressError):
    """A saved model is missing, damaged, or belongs to another model."""


class BaselineError(CompressError):
    """A stored baseline is missing, damaged, or of another kind than this run."""


class MeasureError(CompressError):
    """A metric could not be measured; this is never the same as a metric that passed."""


def first_line(error: BaseException) -> str:
    """What ``error`` says in its first line, for a message of one sentence; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
