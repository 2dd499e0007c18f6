"""How jobs run: files, tables, logs, locks, caches, processes. No step of the study, no mathematics."""
