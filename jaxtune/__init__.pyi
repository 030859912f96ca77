from . import data as data
from . import parallel as parallel
from . import tasks as tasks
from . import tuning as tuning
from .analysis.audit import audit as audit
from .core.errors import UserError as UserError
from .core.types import Batch as Batch
from .core.types import Mean as Mean
from .models.pretrained import load_pretrained as load_pretrained
from .run.config import default_config as default_config
from .run.config import load_config as load_config
from .run.front import evaluate as evaluate
from .run.front import load as load
from .run.front import train as train
from .run.hooks import Hook as Hook
from .run.hooks import every as every
from .run.trackers import Tracker as Tracker
from .training import losses as losses
from .training.optimizers import make_optimizer as make_optimizer
from .training.optimizers import make_schedule as make_schedule
from .training.state import init_state as init_state
from .training.step import make_eval_step as make_eval_step
from .training.step import make_predict_step as make_predict_step
from .training.step import make_train_step as make_train_step
from .tuning.partition import label as label
from .tuning.partition import partition as partition

__version__: str
