"""Stage functions: open references, call one pure function, commit, return a small report.

They are plain functions, so that interactive commands run them without an orchestrator;
``prefect_tasks.py`` gives each its Prefect wrapping (name, retries, caching).
"""
