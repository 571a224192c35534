"""sellers.json and ads.txt files in a folder: ``sellers/DOMAIN.json`` and ``ads.txt/DOMAIN_OR_BUNDLE.txt``."""

from __future__ import annotations

from pathlib import Path

from rtb.domain.schain import SupplyFiles, authorised_by, sellers_of
from rtb.errors import ConfigError


def supply_files(folder: Path) -> SupplyFiles:
    """Read all of them; a part that is absent is empty.

    Raises:
        ConfigError: one line that names the file and what is wrong with it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    sellers, ads_txt = {}, {}
    try:
        for path in sorted(folder.glob("sellers/*.json")):
            sellers[path.stem.lower()] = sellers_of(path.read_bytes())
        for path in sorted(folder.glob("ads.txt/*.txt")):
            ads_txt[path.stem.lower()] = authorised_by(path.read_text(encoding="utf-8-sig", errors="replace"))
    except (OSError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return SupplyFiles(sellers=sellers, ads_txt=ads_txt)
