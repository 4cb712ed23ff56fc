"""The explorer: one page that runs trained networks, attacks and surrogate gradients in the reader's browser.

engine.js computes, drawing.js draws, and page.js connects them with the controls of page.html.  `content` chooses and
describes what the page holds, `agreement` compares the engine with torch, and `page` puts everything into one file.
"""

from paperlib.explorer.export import export
