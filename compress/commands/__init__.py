"""The subcommands of ``python -m compress``, one module each, with ``add_parser`` and what it runs.

Nothing here imports torch before a command runs: ``--help`` must not wait for it.
"""
