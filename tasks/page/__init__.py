"""Parts of a self-contained HTML page: shell, text, tables, pictures, token highlights.

Nothing here knows what a release is. A page made of these parts loads nothing, runs no script, and
shows whatever text it is given as text.
"""
