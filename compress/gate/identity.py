"""Whether a baseline is of the very model that is measured now, of another build of it, or of something else.

A model that is trained or factorized again on another machine differs in the last bits of its weights, and so in some
ranks and zeros. That is no regression: what is held exactly of the same model is held within a tolerance of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from compress.results import Identity

# SHA-256 of a recipe without steps: what made the model, nobody says.
NO_STEPS = hashlib.sha256(b"[]").hexdigest()
# How far counts and bytes of another build may lie above those of the baseline's, as a fraction of them.
BUILD_TOLERANCE = 0.01
HOW_ANOTHER_BUILD_IS_HELD = "counts and bytes held within a tolerance, errors by their increase over the dense model"


class Relation(StrEnum):
    """How the models of this run are related to those of a baseline, in words that follow "compared with"."""

    SAME = "the same model"
    BUILD = "another build of the same recipe"
    MODEL = "another model"
    DENSE = "another dense model"
    RECIPE = "another recipe"
    RECIPE_AND_DENSE = "another recipe and another dense model"
    UNKNOWN = "a model of unknown fingerprint"


@dataclass(frozen=True, kw_only=True)
class Kinship:
    """A relation, and what a reader needs to place it.

    Attributes:
        relation: to the models of the baseline.
        baseline: the file.
        recorded: what the file says of its models, None if nothing.
        now: what was measured, None if nobody knows.
    """

    relation: Relation
    baseline: str
    recorded: Identity | None = None
    now: Identity | None = None

    @property
    def is_same(self) -> bool:
        """Whether both models are, to the bit, those of the baseline."""
        return self.relation is Relation.SAME

    @property
    def is_of_another_dense_model(self) -> bool:
        """Whether the dense model, too, is known to be another one than the baseline's."""
        return self.relation in (Relation.DENSE, Relation.RECIPE_AND_DENSE)


def relation(now: Identity | None, recorded: Identity | None) -> Relation:
    """How two runs' models are related; the same are those whose fingerprints are, whatever their recipes say."""
    if now is None or recorded is None:
        return Relation.UNKNOWN
    if (now.dense, now.compressed) == (recorded.dense, recorded.compressed):
        return Relation.SAME
    if NO_STEPS in (now.recipe, recorded.recipe):
        return Relation.MODEL if now.dense == recorded.dense else Relation.DENSE
    if now.recipe != recorded.recipe:
        return Relation.RECIPE if now.dense == recorded.dense else Relation.RECIPE_AND_DENSE
    return Relation.BUILD if now.dense == recorded.dense else Relation.DENSE


def identity_sentence(kinships: Mapping[str, Kinship]) -> str:
    """What a run was compared with and how that holds it, for the head of its table; "" for no comparison.

    Args:
        kinships: by recipe.
    """
    together: dict[tuple[str, str, str], list[str]] = {}
    for recipe, kinship in kinships.items():
        together.setdefault((kinship.baseline, kinship.relation, _classes(kinship)), []).append(recipe)
    clauses = []
    for (path, related, classes), recipes in together.items():
        whose = f"{', '.join(recipes)}: " if len(together) > 1 else ""
        clauses.append(f"{whose}compared with {related} in {path}{classes}, {_how(Relation(related))}")
    return "; ".join(clauses)


def files_sentence(identities: Mapping[str, Identity]) -> str:
    """Which models come from files and were not made in this run, for the head of its table; "" for none.

    Args:
        identities: by recipe.
    """
    files = [f"{recipe} from {identity.file}" for recipe, identity in identities.items() if identity.file]
    return f"not made in this run: {', '.join(files)}" if files else ""


def _classes(kinship: Kinship) -> str:
    """The classes of machine, where another one may be why the models differ."""
    recorded, now = kinship.recorded, kinship.now
    if kinship.is_same or recorded is None or now is None or recorded.built_on == now.built_on:
        return ""
    if recorded.file or now.file:
        return ""
    return f" (built on {recorded.built_on}, now {now.built_on})"


def _how(related: Relation) -> str:
    if related is Relation.SAME:
        return "counts and bytes held exactly"
    again = "; --benchmark-save records fingerprints" if related is Relation.UNKNOWN else ""
    return f"{HOW_ANOTHER_BUILD_IS_HELD}{again}"
