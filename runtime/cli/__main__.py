"""`python -m fairlead.runtime.cli`: the same as the `fairlead` command."""

from __future__ import annotations

from . import main

main()
