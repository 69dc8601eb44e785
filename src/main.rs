//! The `longhaul` program: parses, runs, returns an exit code.

fn main() -> std::process::ExitCode {
    longhaul::cli::main()
}
