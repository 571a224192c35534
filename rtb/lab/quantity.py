"""A number on the command line that is one: click's own takes nan and inf."""

from __future__ import annotations

import math
from typing import Any

import click


class Quantity(click.FloatRange):
    """A finite number, in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; a usage error names the option."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number
