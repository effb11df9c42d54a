"""The commands: what each is called, and the function behind it."""

COMMANDS = {
    "run": "hydragen_cli.run:run",
    "sample": "hydragen_cli.sample:sample",
    "plan": "hydragen_cli.plan:plan",
    "stack": "hydragen_cli.stack:stack",
    "models": "hydragen_cli.models:models",
    "schema": "hydragen_cli.schema:schema",
    "bench": "hydragen_cli.bench:bench",
    "eval": "hydragen_cli.eval:evaluate",
    "show": "hydragen_cli.show:show",
    "report": "hydragen_cli.report:report",
    "compare": "hydragen_cli.compare:compare",
    "check": "hydragen_cli.check:check",
    "import": "hydragen_cli.convert:import_",
    "export": "hydragen_cli.convert:export",
    "merge": "hydragen_cli.merge:merge",
}
