"""From files to releases: the stages of a run, the store, the report, the command line."""
