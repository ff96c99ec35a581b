"""The HTTP server over one memory.

`serve` builds and runs the application, `middleware` checks every request, `model_queue` hands out
the model, `openai_api`, `responses_api` and `rest_api` are the routes with their schemas next to
them, and `page` is the page for browsers.
"""
