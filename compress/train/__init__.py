"""Training and evaluation: one loop, on one process or under torchrun."""

from compress.train.config import FitConfig as FitConfig
from compress.train.evaluation import Evaluation as Evaluation
from compress.train.evaluation import evaluate as evaluate
from compress.train.fit import FitResult as FitResult
from compress.train.fit import fit as fit
from compress.train.progress import EpochRecord as EpochRecord
