//! `privity`: parses the command line, runs one command, and turns what went wrong into a sentence and an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use privity_client::{cli, commands};

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let wrong = error.use_stderr();
            let _shown = error.print();
            return ExitCode::from(u8::from(wrong));
        }
    };
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("privity: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
