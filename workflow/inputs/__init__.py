"""What a study is given: its configuration, data sets, and weights."""
