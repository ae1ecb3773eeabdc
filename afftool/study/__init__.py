"""Accuracy ablations: one grid of cells, trained alike, judged together. No torch until cells are built.

In the order in which a study passes through them: `request` (words of the command line) gives a `spec` (`variant`,
`recipe`; `grids` are the built-in ones); `plan` builds and tries every variant (`network`, `arrays`, `code`) and makes
`cells`; `run` has them trained on one of the `engines`, each by `train`, and stores them; `stored` reads them back,
`results` matches them with the plan, and `report` says what `significance` allows, beside the paper's (`published`).
"""
