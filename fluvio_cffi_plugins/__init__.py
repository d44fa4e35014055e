"""What other programs find in an environment that has fluvio_cffi: plugins of pytest and PyInstaller.

They are loaded by programs that may have nothing to do with Fluvio, so that importing them imports nothing of
the package, its library or its dependencies.
"""
