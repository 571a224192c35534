"""Realistic SSP traffic, the same for the same seed."""

from __future__ import annotations

from rtb.lab.vocabulary import (
    ADVERTISER_DOMAINS,
    CITIES,
    COUNTRIES,
    DEAL_IDS,
    DEVICES,
    DOMAINS,
    INTERESTS,
    LANGUAGES,
    OSES,
    SENSITIVE_CATS,
    SITE_CATS,
    SIZES,
    VENUES,
)

__all__ = [
    "ADVERTISER_DOMAINS",
    "CITIES",
    "COUNTRIES",
    "DEAL_IDS",
    "DEVICES",
    "DOMAINS",
    "INTERESTS",
    "LANGUAGES",
    "OSES",
    "SENSITIVE_CATS",
    "SITE_CATS",
    "SIZES",
    "VENUES",
]
