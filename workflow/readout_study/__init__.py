"""Opens a finished study: its tables as pandas data frames.

    from readout_study import open_study

    study = open_study("results/digits")
    study.cells()

Needs pandas and pyarrow alone, and a folder of results, wherever that was copied to. docs/notebook.md is a tour, and
docs/tables.md has every file and column. This package knows no other of the project, and no other knows it: they share
the files and nothing else.
"""

from readout_study.folder import StudyError
from readout_study.study import Study, open_study

__all__ = ["Study", "StudyError", "open_study"]
