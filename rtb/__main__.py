"""``python -m rtb`` is the ``rtb`` command."""

from rtb.cli import main

main()
