from flows.cli.main import main as main
