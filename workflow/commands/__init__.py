"""Commands beside the workflow: `python -m commands.<name>`, each with a target of make."""
