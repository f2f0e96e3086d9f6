"""``report.html``: a comparison as one page for people who would rather look than read a table.

One self-contained file: it asks nothing of a network, its policy forbids it to, and whatever
a hostile model is called is text in it. Without JavaScript everything is there to read; with it
the plots answer to pointer and arrows, and the table sorts and filters.
"""
