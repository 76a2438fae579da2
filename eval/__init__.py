"""Models, data, scoring, metrics, runner and report: the layer every method is measured through."""
