"""Text in, padded batches of token ids out.

``tokenizer`` text <-> token ids · ``sources`` streaming readers of files and hub datasets ·
``records`` sentences and dialogues as rows · ``corpus`` token ids, memory-mapped ·
``contexts`` what was said before · ``batches`` padded batches in a reproducible order ·
``check`` what a file holds · ``grammar`` the embedded corpus whose entropy is known.

Nothing is imported here, so that importing the package stays cheap.
"""
