"""The dispatcher's protocols in SQL: one statement a table and batch, keys always locked in sorted order."""
