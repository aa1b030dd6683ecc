"""The obvious PyTorch code of every family that `speed.py` measures the package against.

Written as a competent person writes it first: f32, PyTorch's own layers, z beside every input,
the softmax over every position with ``ignore_index`` for padding, ``torch.optim.Adam``,
importance sampling one sentence at a time, and sampling with ``torch.multinomial``.
"""
