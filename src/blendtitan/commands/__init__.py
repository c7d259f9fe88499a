"""The commands: one module each, with its manual, its arguments and the one call that it is.

A module has ``SUMMARY``, ``MANUAL`` and ``EXAMPLE``, ``add_arguments`` and ``run``. It imports
what it calls when it runs, so that ``--help`` answers at once.
"""
