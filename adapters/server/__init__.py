"""The HTTP server over one memory, in rooms: the app (serve), its gate, its queue (work), what it
speaks, and the page.
"""
