"""Click commands: one noun a file, results on stdout, one place that prints an error."""
