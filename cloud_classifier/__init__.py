"From photos of the sky to a trustworthy classifier of the ten cloud genera."

__version__ = '0.1.0'

# The public face, each name with the room that it comes from. A room is imported when one of its names is asked for,
# so `from cloud_classifier import CloudClassifier` waits for ONNX Runtime and never for torch.
_ROOMS = {
    'Genus': 'taxonomy', 'GENERA': 'taxonomy', 'genus': 'taxonomy', 'UnknownGenus': 'taxonomy',
    'UserError': 'errors', 'OperationFailed': 'errors',
    'BadImage': 'images', 'Preprocess': 'images', 'open_image': 'images',
    'make_samples': 'samples', 'render_sky': 'samples',
    'Dataset': 'data.dataset', 'BadDataset': 'data.dataset',
    'search_images': 'data.sources', 'download': 'data.download', 'scrape_clouds': 'data.scrape',
    'add_photos': 'data.scrape', 'fetch_ccsn': 'data.scrape', 'verify': 'data.verify',
    'find_duplicates': 'data.duplicates', 'get_equal_images': 'data.sampling', 'balance': 'data.sampling',
    'split': 'data.sampling', 'Split': 'data.sampling', 'load_split': 'data.sampling', 'Cleaner': 'data.clean',
    'label_issues': 'data.issues', 'read_oof': 'data.issues', 'out_of_fold': 'training.oof',
    'CleanerWidget': 'data.widget', 'serve_cleaner': 'data.widget',
    'cloud_dls': 'training.dataloaders', 'cloud_learner': 'training.learner', 'suggest_lr': 'training.recipes',
    'RECIPES': 'training.recipes', 'Run': 'training.run', 'train': 'training.run', 'resume': 'training.run',
    'cross_validate': 'training.run', 'explain': 'evaluation.audit', 'evaluate': 'evaluation.report',
    'Report': 'evaluation.report', 'retrain_round': 'evaluation.round', 'clean_round': 'evaluation.round',
    'Round': 'evaluation.round', 'CloudClassifier': 'prediction.infer', 'Prediction': 'prediction.infer',
    'BadModel': 'prediction.infer', 'find_model': 'prediction.infer', 'export_run': 'prediction.export',
    'export_model': 'prediction.export', 'CloudApp': 'prediction.app',
    'build_site': 'prediction.site', 'watch': 'prediction.watch', 'photo_exif': 'prediction.climate',
    'prior_of_photo': 'prediction.climate', 'find_photos': 'prediction.batch', 'predict_all': 'prediction.batch',
    'write_answers': 'prediction.batch', 'predict_archive': 'prediction.scale', 'verify_archive': 'prediction.scale',
    'fingerprint_archive': 'prediction.scale', 'embed_archive': 'prediction.scale',
}
__all__ = [*_ROOMS]


def __getattr__(name: str):
    "Import the room that a public name comes from (PEP 562)."
    if name not in _ROOMS:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f'{__name__}.{_ROOMS[name]}'), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
