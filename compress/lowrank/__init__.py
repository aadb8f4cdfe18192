"""Low-rank factorization: layers become chains of smaller ones."""

from compress.lowrank.config import LowRankConfig as LowRankConfig
from compress.lowrank.factorize import factorize as factorize
from compress.lowrank.factorize import plan_factorization as plan_factorization
