"""Where PyInstaller finds the hook for frozen programs (entry point `pyinstaller40`)."""

from __future__ import annotations

import os


def hook_dirs() -> list[str]:
    """The folder of the hook."""
    return [os.path.dirname(__file__)]
