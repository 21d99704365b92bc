"""Runs that are killed at any moment, and disks that are full at any write.

`python -m tests.chaos --kills 50 --json` forks real runs from a process that has imported all,
kills them with SIGKILL, has them resumed, and compares what they had acknowledged with what is
left. See docs/crashes.md.
"""
