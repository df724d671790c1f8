"A page for each verb of the command line, made from the command itself."

import inspect
import re

import typer.main
from api import code, escaped, table

from cloud_classifier.cli import app

GROUP = typer.main.get_command(app)
TOP = GROUP.context_class(GROUP, info_name='cloud-classifier', **GROUP.context_settings)


def verbs() -> list[str]:
    "The verbs, in the order in which --help lists them."
    return list(GROUP.commands)


def exit_statuses(verb: str = '') -> str:
    "A table of exit statuses; one that names a verb is that verb's alone."
    found = re.findall(r'(\d+) ([^;]+)', app.info.epilog.partition(': ')[2].rstrip('.'))
    named = [(status, text, re.search(rf'\b({"|".join(verbs())})\b', text)) for status, text in found]
    rows = [[code(status), text] for status, text, name in named if not (verb and name and name[0] != verb)]
    return table(['status', 'meaning'], rows)


def parameter_row(parameter, context) -> list[str]:
    "How a parameter is typed, what it means, and its default."
    typed, text = parameter.get_help_record(context)
    typed = ' '.join(parameter.get_usage_pieces(context)) or typed
    text, _, notes = text.partition('  [') if '  [' in text else (text, '', '')
    notes = [o for o in notes.rstrip(']').split('; ') if o]
    default = next((o.removeprefix('default: ') for o in notes if o.startswith('default: ')), '')
    others = ', '.join(o for o in notes if not o.startswith('default: '))
    return [code(typed), escaped(text) + (f' ({escaped(others)})' if others else ''), escaped(default)]


def parameters(command, context) -> str:
    "The tables of a command's arguments and options."
    shown = [o for o in command.get_params(context) if o.get_help_record(context)]
    parts = []
    for title, kind in (('Arguments', 'argument'), ('Options', 'option')):
        rows = [parameter_row(o, context) for o in shown if o.param_type_name == kind]
        if rows:
            parts.append(f'## {title}\n\n{table([kind, "meaning", "default"], rows)}')
    return '\n\n'.join(parts)


def rooms_behind(function) -> list[str]:
    "The modules that a verb imports when it runs, and the names that it imports from them."
    found = re.findall(r'from cloud_classifier\.([\w.]+) import ([\w, ]+)', inspect.getsource(function))
    below = {f'{module}.{o.split()[0]}' for module, names in found for o in names.split(',')}
    return sorted({module for module, _ in found} | below)


def verb_page(verb: str, examples: list[str], room_links: dict[str, str]) -> str:
    "The page of a verb: what it does, how it is called, what it can be told, and how it ends."
    command = GROUP.commands[verb]
    context = command.context_class(command, info_name=verb, parent=TOP)
    what, _, more = inspect.cleandoc(command.help or '').partition('\n\n')
    usage = ' '.join(command.get_usage(context).removeprefix('Usage: ').split())
    behind = [room_links[o] for o in rooms_behind(inspect.unwrap(command.callback)) if o in room_links]
    parts = [
        f'# {verb}',
        f'> {escaped(" ".join(what.split()))}',
        escaped(more),
        f'```sh\n{usage}\n```',
        'For example:\n\n```sh\n' + '\n'.join(examples) + '\n```' if examples else '',
        parameters(command, context),
        f'## Exit status\n\n{exit_statuses(verb)}',
        f'## Behind it\n\n{", ".join(behind)}' if behind else '',
    ]
    return '\n\n'.join(filter(None, parts)) + '\n'


def index_page() -> str:
    "The list of verbs, and what holds for all of them."
    rows = [[f'[{o}]({o}.md)', escaped(GROUP.commands[o].get_short_help_str(1000))] for o in verbs()]
    parts = [
        '# Command line',
        f'> {escaped(app.info.help)}',
        '```sh\ncloud-classifier VERB …\ncloud-classifier VERB --help\n```',
        '## Verbs',
        table(['verb', 'what it does'], rows),
        parameters(GROUP, TOP),
        f'## Exit status\n\n{exit_statuses()}',
        '```{toctree}\n:hidden:\n\n' + '\n'.join(verbs()) + '\n```',
    ]
    return '\n\n'.join(parts) + '\n'
