"""Reports: what attention moves, needs and sees, as tables, JSON, SVG and self-contained pages."""
