"""The options that every command knows: where its settings come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from rtb import config
from rtb.config import Settings


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--config and --set after the command as well."""
    option = click.option("--config", "config_path", type=click.Path(path_type=Path), help="A TOML file.")
    override = click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting.")
    return option(override(command))


def load(context: click.Context, config_path: Path | None, overrides: Sequence[str]) -> Settings:
    path, before = context.obj
    return config.load(config_path or path, os.environ, (*before, *overrides))


def given(context: click.Context, config_path: Path | None, overrides: Sequence[str]) -> list[str]:
    """The same options again, as arguments for another process."""
    path, before = context.obj
    chosen = config_path or path
    arguments = ["--config", str(chosen)] if chosen is not None else []
    return arguments + [part for setting in (*before, *overrides) for part in ("--set", setting)]
