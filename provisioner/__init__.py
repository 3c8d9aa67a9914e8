"""gpulease: rent a GPU, serve a model, evaluate it, and let go of the machine with a proof that it is gone.

The program is the command line in `cli.py`; the guarantee is in `lease.py`, `journal.py` and `scope.py`. This file
holds only the version, so that importing any part stays cheap: the names of what it is made of are in `model.py`
and `errors.py`, which plugins (providers) import from there.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
