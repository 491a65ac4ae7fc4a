//! The command line: every command spells a recipe, runs it and prints the report.

mod accuracy;
mod apply;
mod convert;
mod distill;
mod explain;
mod groups;
mod inspect;
mod judge;
mod learning;
mod ops;
mod output;
mod progress;
mod prune;
mod quantize;
mod recover;
mod run;
mod save;
mod sensitivity;
mod simplify;
mod sparsify;
mod validate;

use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

/// More threads than any machine has use for only take memory.
const MAX_THREADS: usize = 512;

/// Exit status of a result that breaks a bound (`--max-drop`, `--min-sqnr`, `--min-agreement`).
const GATE_FAILED: u8 = 3;

/// Optimizes exported ONNX models and measures what it cost.
///
/// An exported .onnx goes in; a smaller, faster .onnx comes out, with a measured account of the difference: both models
/// are executed in tract on your data. Exit status: 0 done, 1 an error (one line says what), 2 wrong usage, 3 the result
/// breaks a bound that was asked for.
#[derive(Parser)]
#[command(name = "sardonyx", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Inspect),
    Simplify(simplify::Simplify),
    Sparsify(sparsify::Sparsify),
    Groups(groups::Groups),
    Prune(prune::Prune),
    Quantize(quantize::Quantize),
    Convert(convert::Convert),
    Sensitivity(sensitivity::Sensitivity),
    Explain(explain::Explain),
    Distill(distill::Distill),
    Validate(validate::Validate),
    Run(run::Run),
    Apply(apply::Apply),
    Ops(ops::Ops),
}

/// Options of every command.
#[derive(Args, Clone)]
struct Common {
    /// Print the report as JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
    /// Threads to use (default: all cores). The result is the same whatever their number.
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
    /// Show no progress.
    #[arg(long, short, global = true)]
    quiet: bool,
}

/// How a command ended well.
enum Done {
    Ok,
    GateFailed,
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(Done::Ok) => ExitCode::SUCCESS,
        Ok(Done::GateFailed) => ExitCode::from(GATE_FAILED),
        Err(e) => {
            // One line, outermost words first; the library's errors already carry their sources in their text.
            eprintln!("error: {}", output::one_line(&e.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Done> {
    if let Some(n) = cli.common.threads {
        anyhow::ensure!((1..=MAX_THREADS).contains(&n), "--threads takes 1 to {MAX_THREADS}");
        rayon::ThreadPoolBuilder::new().num_threads(n).build_global()?;
    }
    // tract turns bad models into panics here and there; the runtime makes errors of them, so nobody needs the noise.
    std::panic::set_hook(Box::new(|_| {}));
    match cli.command {
        Command::Inspect(c) => c.run(&cli.common),
        Command::Groups(c) => c.run(&cli.common),
        Command::Prune(c) => c.run(&cli.common),
        Command::Quantize(c) => c.run(&cli.common),
        Command::Sparsify(c) => c.run(&cli.common),
        Command::Distill(c) => c.run(&cli.common),
        Command::Simplify(c) => c.run(&cli.common),
        Command::Convert(c) => c.run(&cli.common),
        Command::Explain(c) => c.run(&cli.common),
        Command::Sensitivity(c) => c.run(&cli.common),
        Command::Validate(c) => c.run(&cli.common),
        Command::Run(c) => c.run(&cli.common),
        Command::Apply(c) => c.run(&cli.common),
        Command::Ops(c) => c.run(&cli.common),
    }
}
