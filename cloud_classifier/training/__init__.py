"A fastai learner, from photos to a run."

import warnings

# fastai 2.8 uses it while it is imported, which each room of this door begins with.
warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning)
