"""``unlearn methods``: what there is to compare."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("methods")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else.")
def command(as_json: bool) -> None:
    """List the unlearning methods: what each changes, what it does, where it comes from."""
    from unlearn.cli.options import print_json
    from unlearn.methods import make_method, method_names

    methods = [make_method(name) for name in method_names()]
    if as_json:
        print_json(
            [{"name": m.name, "kind": m.kind, "summary": m.summary, "paper": m.paper} for m in methods]
        )
        return
    width = max(len(m.name) for m in methods)
    for m in methods:
        click.echo(f"{m.name:<{width}}  {m.kind:<11}  {m.summary} [{m.paper}]")
