"""Find poisoned, backdoored and mislabelled rows. Knows no files, no workflow, no web."""
