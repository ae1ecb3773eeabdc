"""What a case costs, counted: its reading, the table from operators to formulas, and how a count is explained.

`count` is where to begin; `reading` is plain values and imports no torch.
"""
