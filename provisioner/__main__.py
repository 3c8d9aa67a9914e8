"""`python -P -m provisioner` is `gpulease`, for where the script is not on the PATH.

-P keeps the current folder out of the import path, where a folder called `cost` would stand in for ours.
"""

from __future__ import annotations

from provisioner.cli import main

if __name__ == "__main__":
    main()
