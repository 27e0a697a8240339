//! `egress man` and `egress completions`: what packages want, made from the command line's own
//! description.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::{cli::Cli, commands::output::print};

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Where to write `egress.1` and a page for each verb
    #[arg(value_name = "DIRECTORY")]
    pub directory: std::path::PathBuf,
}

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Writes the man pages.
///
/// # Errors
///
/// Where they cannot be written.
pub fn man(args: &ManArgs) -> Result<()> {
    fs::create_dir_all(&args.directory)
        .with_context(|| format!("making {}", args.directory.display()))?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    pages(&command, "egress", &args.directory)
        .with_context(|| format!("writing to {}", args.directory.display()))
}

fn pages(command: &Command, name: &str, directory: &Path) -> io::Result<()> {
    let leaked: &'static str = Box::leak(name.to_owned().into_boxed_str());
    let mut page = Vec::new();
    clap_mangen::Man::new(
        command
            .clone()
            .name(leaked)
            .bin_name(name.replace('-', " ")),
    )
    .section("1")
    .source(concat!("egress ", env!("CARGO_PKG_VERSION")))
    .manual("egress")
    .render(&mut page)?;
    fs::write(directory.join(format!("{name}.1")), page)?;
    let below = command.get_subcommands().filter(|one| !one.is_hide_set());
    for command in below {
        pages(
            command,
            &format!("{name}-{}", command.get_name()),
            directory,
        )?;
    }
    Ok(())
}

/// Prints a completion script.
///
/// # Errors
///
/// Where it cannot be printed.
pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "egress", &mut script);
    print(&String::from_utf8(script)?)
}
