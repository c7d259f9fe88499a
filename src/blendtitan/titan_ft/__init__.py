"""Fault-tolerant training with torchft: replicas of a job that fail and join while it trains.

A *replica* is the processes of one copy of the model, started on its own. A *lighthouse* of torchft
tells the replicas before each attempt at a step who takes part. Imported only with
``fault_tolerance.enable = true``, except for ``settings``.
"""
