"""Small tools without a subject of their own: terminal output, JSON, parquet files, versions.

Each module stands for itself; read one when an import leads to it.

Imports: `conf`, and the types of `rl`.
"""
