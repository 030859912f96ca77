"""jaxtune: fine-tune pretrained models in JAX, and pay only for what you train.

    import jaxtune as jt

The public names stand in `__init__.pyi`, each with the module that defines it, and are imported
when they are first used, so that `import jaxtune` itself takes no time.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
