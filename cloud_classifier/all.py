"Everything for notebooks: `from cloud_classifier.all import *`, as `from fastai.vision.all import *` does."

from .taxonomy import *
from .errors import *
from .files import *
from .images import *
from .samples import *
from .hosting import *
from .fetch import *
from .data.dataset import *
from .data.sources import *
from .data.download import *
from .data.scrape import *
from .data.verify import *
from .data.duplicates import *
from .data.sampling import *
from .data.issues import *
from .data.clean import *
from .data.widget import *
from .training.config import *
from .training.dataloaders import *
from .training.learner import *
from .training.callbacks import *
from .training.recipes import *
from .training.run import *
from .training.oof import *
from .evaluation.ood import *
from .evaluation.calibrate import *
from .evaluation.audit import *
from .evaluation.report import *
from .evaluation.round import *
from .prediction.decide import *
from .prediction.infer import *
from .prediction.export import *
from .prediction.app import *
from .prediction.site import *
from .prediction.serve import *
from .prediction.watch import *
from .prediction.batch import *
from .prediction.climate import *
from .prediction.scale import predict_archive, verify_archive, fingerprint_archive, embed_archive, duplicates_archive

# Names that `fastai.vision.all` has for something else, and names that mean one thing in one room and another in the next:
# import these from their rooms.
_ELSEWHERE = {'Source', 'View', 'get_source', 'maps', 'open_file', 'plot_top_losses',
              'BALANCES', 'FACTS', 'FetchError', 'MAX_BYTES', 'MAX_MEMORY', 'PENALTY', 'PRECISIONS', 'predict_photos'}
__all__ = [name for name in globals() if not name.startswith('_') and name not in _ELSEWHERE]
