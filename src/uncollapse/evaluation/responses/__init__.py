"""Responses to dialogue contexts, held against what people said: pure functions of word lists.

``sets`` what is compared and how figures become means over contexts · ``bleu`` words in common ·
``embeddings`` words of like meaning · ``similarity`` of two sentences by word vectors ·
``diversity`` how much responses repeat.

Nothing is imported here, so that importing the package stays cheap.
"""
