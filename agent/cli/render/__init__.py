"""Everything a terminal shows: the live view, Markdown, tables, images, progress, the pager."""
