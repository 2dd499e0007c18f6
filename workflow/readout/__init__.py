"""The mathematics of the study: arrays in, arrays out.

No module in here reads or writes a file of a study, and none knows Snakemake; `jobs` does both.
"""


class StudyError(Exception):
    """Something a user can put right: the message names the file, key or class at fault and the way out."""
