"""Screening: any number of structures relaxed in one stream, on many processes or machines.

`inputs` finds the structures, `chunk` relaxes some of them, `pool` (or `on_ray`) does so on many
processes, `work` keeps what is done, `outputs` writes what a user gets, and `run` puts it together.
"""
