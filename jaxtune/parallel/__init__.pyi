from .sharding import Sharding as Sharding
from .sharding import make_sharding as make_sharding
from .sharding import place as place
from .sharding import place_batch as place_batch
