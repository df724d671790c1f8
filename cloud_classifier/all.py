"Everything for notebooks: `from cloud_classifier.all import *`, as `from fastai.vision.all import *` does."

from .taxonomy import *
from .files import *
from .images import *
from .samples import *
from .data.dataset import *
from .data.sources import *
from .data.download import *
from .data.scrape import *
from .data.verify import *
from .data.duplicates import *
from .data.sampling import *
from .data.clean import *
from .training.config import *
from .training.dataloaders import *
from .training.learner import *
from .training.callbacks import *
from .training.recipes import *
from .training.run import *
from .evaluation.ood import *
from .evaluation.calibrate import *
from .evaluation.audit import *
from .evaluation.report import *
from .prediction.decide import *
from .prediction.infer import *
from .prediction.export import *
from .prediction.app import *
