//! `longhaul man`: manual pages, one a command, from the same source as `--help`.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Cli, CliError};

/// Arguments of `longhaul man`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Directory for the pages of all commands; without it the page of the program goes to stdout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
pub(super) fn run(args: Args) -> Result<(), CliError> {
    let mut command = Cli::command();
    command.build();
    let Some(out) = args.out else {
        Man::new(command).render(&mut io::stdout().lock())?;
        return Ok(());
    };
    fs::create_dir_all(&out)?;
    let mut left = vec![("longhaul".to_owned(), command)];
    while let Some((name, command)) = left.pop() {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
            left.push((format!("{name}-{}", sub.get_name()), sub.clone()));
        }
        let mut page = Vec::new();
        Man::new(command.name(name.clone())).render(&mut page)?;
        let path = out.join(format!("{name}.1"));
        fs::write(&path, page)?;
        writeln!(io::stdout().lock(), "wrote {}", path.display())?;
    }
    Ok(())
}
