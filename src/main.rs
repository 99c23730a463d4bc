//! The `ledger` program.

fn main() -> std::process::ExitCode {
    app::cli::run(std::env::args_os())
}
