"""The command line, ``msrf-monai``: one small file for each group of commands."""
