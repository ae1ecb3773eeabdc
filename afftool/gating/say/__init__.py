"""How a judgement is told: `table` for the terminal, `markdown`, `junit`, `document` (JSON), `annotations` (GitHub).

Each takes a `Judgement` and gives text or data; none writes or prints.
"""
