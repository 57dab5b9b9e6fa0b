"""The dashboard: pages for staff at /dashboard, rendered here (Jinja2), renewed by a small script (gateway/static).

`routes` are the pages, `session` says who looks, `shared` asks the views once for all who look, `figures` turns rows
into what a person reads, `html` makes the pages.
"""
