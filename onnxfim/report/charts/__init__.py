"""Charts as coordinates and paths; the templates draw them.

`shapes` are what every chart is made of and `axes` its scales; each other module is one kind of chart: `histograms` and `scatter`
of the samples, `survival_curves` of their distances, `step_curve`, `kl_charts` of the replay, `bars` from a zero line,
`comparison_charts` of several audits.
"""
