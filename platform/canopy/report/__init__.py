"""The report: the HTML page with its figures, and the closing tables of the terminal."""
