"""Which house campaigns may bid for an imp: the exact rules (`check`) and the index that finds the best (`Index`)."""

from rtb.domain.targeting.block import Candidate, candidate
from rtb.domain.targeting.criteria import Criterion, Fit, Miss, check
from rtb.domain.targeting.geo import distance_km
from rtb.domain.targeting.index import Index

__all__ = ["Candidate", "Criterion", "Fit", "Index", "Miss", "candidate", "check", "distance_km"]
