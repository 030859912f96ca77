from .batching.batches import BatchIndex as BatchIndex
from .batching.layout import Layout as Layout
from .batching.layout import choose_layout as choose_layout
from .batching.stream import Stream as Stream
from .text.examples import Examples as Examples
from .text.examples import load_tokenizer as load_tokenizer
from .text.examples import tokenize as tokenize
