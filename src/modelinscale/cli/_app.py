"""All commands, in the order of the way they go."""

from typing import Annotated

import typer

from modelinscale.cli import (
    audit,
    check,
    collect,
    contract,
    demo,
    deploy,
    evaluate,
    explain,
    export,
    forget,
    init,
    kinds,
    plan,
    predict,
    promote,
    rollback,
    rotate,
    run,
    schema,
    serve,
    show,
    train,
    tune,
    vacuum,
)

app = typer.Typer(
    name="mis",
    help="From raw rows to a served model that keeps learning, from one file.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start: mis init data.csv --target y && mis run && mis serve",
)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
    log: Annotated[str, typer.Option("--log", envvar="MIS_LOG", help="What is logged to standard error: debug, info, warning or error.")] = "warning",
    log_form: Annotated[str, typer.Option("--log-form", envvar="MIS_LOG_FORM", help="text, or json with one object a line.")] = "text",
) -> None:
    from modelinscale.cli import _show

    if version:
        from modelinscale import __version__

        _show.line(f"mis {__version__}")
        raise typer.Exit
    _show.logs(log, log_form)


for one in (
    init,
    check,
    plan,
    run,
    collect,
    tune,
    train,
    evaluate,
    explain,
    export,
    predict,
    serve,
    show,
    promote,
    rollback,
    vacuum,
    forget,
    rotate,
    audit,
    kinds,
    schema,
    demo,
):
    app.command(name=one.__name__.rpartition(".")[2])(one.command)
app.add_typer(contract.app, name="contract")
app.add_typer(deploy.app, name="deploy")
