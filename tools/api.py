"What the public names of a room are, as Markdown: signature, docstring, and docments as a table."

import ast
import inspect
import io
import re
import tokenize
from copy import deepcopy
from functools import cached_property, reduce
from importlib import import_module
from types import FunctionType

from fastcore.docments import docments
from nbdev.doclinks import patch_name

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def escaped(text: str) -> str:
    "Text whose code spans are Markdown, and nothing else."
    parts = re.split(r'(`[^`]+`)', text)
    return ''.join(part if i % 2 else re.sub(r'([\\*$\[\]<])', r'\\\1', part) for i, part in enumerate(parts))


def code(text: str) -> str:
    "A code span; an empty one is left out."
    fence = '``' if '`' in text else '`'
    return f'{fence}{text}{fence}' if text else ''


def table(header: list[str], rows: list[list[str]]) -> str:
    "A Markdown table without the columns that are empty."
    filled = [i for i in range(len(header)) if i == 0 or any(row[i] for row in rows)]
    lines = [[header[i] for i in filled], ['---'] * len(filled), *([row[i] for i in filled] for row in rows)]
    return '\n'.join('| ' + ' | '.join(cell.replace('|', r'\|') for cell in line) + ' |' for line in lines)


class Names(dict):
    "The full names of public things, by the name that prose and annotations give them."

    def add(self, name: str, full: str) -> None:
        "A name that two rooms have stands for neither."
        self[name] = full if self.get(name, full) == full else None

    def link(self, name: str) -> str:
        "A name as a link to its definition, or else as code."
        full = self.get(name.removesuffix('()'))
        return f'{{py:obj}}`{name} <{full}>`' if full else code(name)

    def linked(self, text: str) -> str:
        "Markdown whose code spans are links where they are names; headings, links and blocks of code stay as they are."
        parts = re.split(r'(^```.*?^```|^#.*?$|\[[^\]]*\]\([^)]*\)|`[^`\n]+`)', text, flags=re.MULTILINE | re.DOTALL)
        return ''.join(self.link(o[1:-1]) if re.fullmatch(r'`[\w.]+(\(\))?`', o) else o for o in parts)


def is_public(node: ast.AST) -> bool:
    return not node.name.startswith('_')


def decorators(node: ast.AST) -> set[str]:
    "The names of what decorates a definition."
    return {ast.unparse(o).partition('(')[0].split('.')[-1] for o in node.decorator_list}


def full_name(node: ast.AST) -> str:
    "The name of a function or a class below its module; a method that is patched in has its class before it."
    return patch_name(node)


def first_sentence(text: str) -> str:
    return re.split(r'(?<=[.!?])\s|\n\n|;\s', text.strip(), maxsplit=1)[0]


class Source:
    "The source of a cell."

    def __init__(self, text: str):
        self.text, self.tree = text, ast.parse(text)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        self.comments = {o.start[0]: o.string.lstrip('# ') for o in tokens if o.type == tokenize.COMMENT}

    def of(self, node: ast.AST | None) -> str:
        "What is written for a node, on one line."
        return ' '.join(ast.get_source_segment(self.text, node).split()) if node else ''

    def default(self, node: ast.AST | None) -> str:
        "What is written for a default; of a dataclass's `field` what it says of one."
        if getattr(getattr(node, 'func', None), 'id', '') == 'field':
            said = {o.arg: self.of(o.value) for o in node.keywords}
            return said.get('default') or (f'{said["default_factory"]}()' if 'default_factory' in said else '')
        return self.of(node)

    def constants(self) -> list[tuple[str, str, str]]:
        "Name, value and comment of each public constant that has a comment beside it."
        found = []
        for node in self.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, 'target', None)]
            comment = self.comments.get(node.lineno) or self.comments.get(node.end_lineno, '')
            name = getattr(targets[0], 'id', '_')
            if isinstance(node, ast.Assign | ast.AnnAssign) and not name.startswith('_') and comment:
                found.append((name, self.of(node.value), comment))
        return found

    def definitions(self) -> list[ast.AST]:
        "The public functions and classes."
        return [o for o in self.tree.body if isinstance(o, FUNCTION | ast.ClassDef) and is_public(o)]

    def names(self) -> list[str]:
        "What the cell makes public, methods included."
        found = [name for name, _, _ in self.constants()]
        for node in self.definitions():
            found.append(full_name(node))
            if isinstance(node, ast.ClassDef):
                found += [f'{node.name}.{o.name}' for o in node.body if isinstance(o, FUNCTION) and is_public(o)]
        return found


class Entries:
    "Markdown of what a room defines."

    def __init__(self, module: str, names: Names):
        self.module, self.names = import_module(module), names

    def meanings(self, name: str) -> dict[str, str]:
        "The docments of a function, a method or a class, by parameter."
        thing = reduce(inspect.getattr_static, name.split('.'), self.module)
        if isinstance(thing, classmethod | staticmethod):
            thing = thing.__func__
        thing = getattr(thing, 'fget', None) or (thing.func if isinstance(thing, cached_property) else thing)
        if isinstance(thing, FunctionType) and hasattr(thing, '__delwrap__'):
            # As it is written, without the parameters that it passes on.
            thing = FunctionType(thing.__code__, thing.__globals__, thing.__name__)
        return {k: v for k, v in docments(thing, args_kwargs=True).items() if v}

    def kind(self, annotation: str) -> str:
        "An annotation; a name of this project is a link."
        return self.names.link(annotation)

    def parameters(self, source: Source, node: ast.AST, meanings: dict) -> list[list[str]]:
        "Name, type, default and meaning of each parameter of a function, or field of a dataclass."
        if isinstance(node, ast.ClassDef):
            fields = [o for o in node.body if isinstance(o, ast.AnnAssign) and not o.target.id.startswith('_')]
            triples = [(o.target.id, o.annotation, o.value) for o in fields]
        else:
            a = node.args
            plain, keyword = [*a.posonlyargs, *a.args], zip(a.kwonlyargs, a.kw_defaults, strict=True)
            defaults = [None] * (len(plain) - len(a.defaults)) + a.defaults
            triples = [(o.arg, o.annotation, default) for o, default in zip(plain, defaults, strict=True)]
            triples += [('*' + a.vararg.arg, a.vararg.annotation, None)] if a.vararg else []
            triples += [(o.arg, o.annotation, default) for o, default in keyword]
            triples += [('**' + a.kwarg.arg, a.kwarg.annotation, None)] if a.kwarg else []
        return [
            [code(name), self.kind(source.of(kind)), code(source.default(default)), meanings.get(name.lstrip('*'), '')]
            for name, kind, default in triples
            if name not in ('self', 'cls')
        ]

    def table(self, source: Source, node: ast.AST, meanings: dict) -> str:
        "The docments; nothing where there are none."
        rows = self.parameters(source, node, meanings)
        if isinstance(node, FUNCTION) and (node.returns or 'return' in meanings):
            rows.append(['*returns*', self.kind(source.of(node.returns)), '', meanings.get('return', '')])
        rows = [[*row[:3], self.names.linked(escaped(row[3].replace('\n', ' ')))] for row in rows]
        return table(['name', 'type', 'default', 'meaning'], rows) if meanings else ''

    def signature(self, node: FUNCTION, method: bool, whole: bool) -> str:
        "Parameters with their defaults, and with their types where no table has them."
        args = deepcopy(node.args)
        if method and 'staticmethod' not in decorators(node):
            del (args.posonlyargs or args.args)[0]
        if not whole:
            for o in ast.walk(args):
                if isinstance(o, ast.arg):
                    o.annotation = None
        returns = f' -> {ast.unparse(node.returns)}' if whole and node.returns else ''
        return f'({ast.unparse(args)}){returns}'

    def function(self, source: Source, node: FUNCTION, owner: str = '') -> str:
        "The entry of a function or a method."
        name = f'{owner}.{node.name}' if owner else full_name(node)
        marks, meanings = decorators(node), self.meanings(name)
        doc = self.names.linked(escaped(inspect.cleandoc(ast.get_docstring(node) or '')))
        if marks & {'property', 'cached_property'} or 'patch(as_prop=True)' in map(ast.unparse, node.decorator_list):
            kind = f':type: {source.of(node.returns)}\n' if node.returns else ''
            meaning = self.names.linked(escaped(meanings.get('return', '')))
            return f':::{{py:property}} {name}\n{kind}\n{doc}\n\n{meaning}\n:::'
        method = '.' in name
        options = [f':{o}:' for o in ('classmethod', 'staticmethod') if o in marks]
        options += [':classmethod:'] if 'patch(cls_method=True)' in map(ast.unparse, node.decorator_list) else []
        options += [':async:'] if isinstance(node, ast.AsyncFunctionDef) else []
        signature = self.signature(node, method, whole=not meanings)
        body = '\n\n'.join(filter(None, [doc, self.table(source, node, meanings)]))
        directive = 'py:method' if method else 'py:function'
        return '\n'.join([f':::{{{directive}}} {name}{signature}', *options, '', body, ':::'])

    def class_(self, source: Source, node: ast.ClassDef) -> str:
        "The entry of a class, with its public methods that say what they are for."
        init = next((o for o in node.body if isinstance(o, FUNCTION) and o.name == '__init__'), None)
        is_record, meanings = 'dataclass' in decorators(node), self.meanings(node.name)
        signature = self.signature(init, True, whole=not meanings) if init else ''
        doc = self.names.linked(escaped(ast.get_docstring(node) or ''))
        shown = self.table(source, node if is_record else init, meanings) if is_record or init else ''
        methods = [o for o in node.body if isinstance(o, FUNCTION) and is_public(o)]
        methods = [o for o in methods if ast.get_docstring(o) or self.meanings(f'{node.name}.{o.name}')]
        entries = [self.function(source, o, node.name) for o in methods]
        return '\n'.join([f'::::{{py:class}} {node.name}{signature}', '', doc, '', shown, '', *entries, '::::'])

    def constant(self, name: str, value: str, comment: str) -> str:
        shown = f':value: {value}\n' if re.fullmatch(r"[\w./(][\w .,'/()*-]{,60}", value) else ''
        return f':::{{py:data}} {name}\n{shown}\n{self.names.linked(escaped(comment))}\n:::'

    def of(self, text: str) -> list[str]:
        "The entries of what a cell makes public."
        source = Source(text)
        found = [self.constant(*o) for o in source.constants()]
        for node in source.definitions():
            found.append(self.class_(source, node) if isinstance(node, ast.ClassDef) else self.function(source, node))
        return found

    def overview(self, texts: list[str]) -> str:
        "A table of the functions, classes and constants of some cells, each with what it is in a sentence."
        rows = []
        for source in map(Source, texts):
            rows += [(name, comment) for name, _, comment in source.constants()]
            own = [o for o in source.definitions() if '.' not in full_name(o)]
            rows += [(o.name, ast.get_docstring(o) or '') for o in own]
        rows = [
            [f'{{py:obj}}`{name} <{self.module.__name__}.{name}>`', self.names.linked(escaped(first_sentence(doc)))]
            for name, doc in rows
        ]
        return table(['name', 'what it is'], rows) if rows else ''
