"""The commands: for each one its manual, its arguments, and the calls that it makes.

A command imports what it calls when it runs, so that ``--help`` answers at once.
"""
