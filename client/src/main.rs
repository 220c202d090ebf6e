//! `privity`: parses the command line, runs one command, and turns what went wrong into a sentence and an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use privity_client::error::Error;
use privity_client::{cli, commands, out, view};

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
        Ok(()) | Err(Error::Closed) => ExitCode::SUCCESS,
        Err(error) => {
            out::note(&format!("privity: {}", view::plain(&error.to_string(), false)));
            ExitCode::from(error.exit_code())
        }
    }
}
