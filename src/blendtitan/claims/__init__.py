"""One job per run folder: claims, files named ``claim-TIME_PROCESS.json`` in the folder.

A job first writes its claim and then looks for those of others. So if two jobs start at once, at
least one sees the other, and the later one ends. Each writes only its own claim, and deletes those
of jobs that are gone, so nothing is locked. (``flock`` needs a lock daemon on NFS and Lustre.)

- A process of this machine is gone when it has ended.
- A process elsewhere touches its claim every 10 s. It is gone when its claim has not changed for
  60 s by the clock of the job that watches. Clocks of two machines are never compared.
"""
