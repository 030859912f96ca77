from .batching.batches import BatchIndex as BatchIndex
from .batching.layout import Layout as Layout
from .batching.layout import choose_layout as choose_layout
from .batching.stream import Stream as Stream
from .text.examples import Examples as Examples
from .text.tokens import Tokens as Tokens
from .text.tokens import load_tokenizer as load_tokenizer
from .text.tokens import tokenize as tokenize
