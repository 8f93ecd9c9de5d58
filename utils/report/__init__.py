"""The paper's figures, tables, pictures, results of runs."""
