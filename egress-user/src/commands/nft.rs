//! `egress nft`: nft(8)'s own command line, for the tables of family netdev.

use std::{
    ffi::OsString,
    io::{self, BufRead as _},
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use anyhow::{Result, bail};
use clap::Parser;
use egress_lang::{
    ast::{Command, CommandKind, Script},
    changes,
    checked::{Initial, Ruleset},
    datatype::names::Names,
    diagnostic::Diagnostics,
    image::Options as ImageOptions,
    json,
    print::PrintOptions,
};
use log::debug;

use crate::{
    cli::{NetnsArgs, NftArgs, SettingsArgs},
    commands::{
        check, load,
        source::{self, Reading, Source},
    },
    generation::{self, elements, state::State, store::Store},
    kernel::{bpffs::Pins, device::Devices, netns::Netns},
};

mod listing;
mod monitor;

/// nft's options, and `--netns`.
#[derive(Debug, Parser)]
#[command(
    name = "egress nft",
    bin_name = "egress nft",
    no_binary_name = true,
    disable_version_flag = true,
    args_override_self = true,
    max_term_width = 100
)]
struct Options {
    /// Reads commands from a file; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Reads commands from standard input, line by line
    #[arg(short, long)]
    interactive: bool,
    /// Checks, and changes nothing
    #[arg(short, long)]
    check: bool,
    /// Where else to look for what is included
    #[arg(short = 'I', long, value_name = "DIRECTORY")]
    includepath: Vec<PathBuf>,
    /// Defines a variable
    #[arg(short = 'D', long, value_name = "NAME=VALUE", value_parser = define)]
    define: Vec<(String, String)>,
    /// Prints JSON
    #[arg(short, long)]
    json: bool,
    /// Prints handles
    #[arg(short = 'a', long)]
    handle: bool,
    /// Prints no state: no counts
    #[arg(short, long)]
    stateless: bool,
    /// Prints no elements of sets
    #[arg(short, long)]
    terse: bool,
    /// Prints numbers only
    #[arg(short, long)]
    numeric: bool,
    /// Prints priorities of chains as numbers
    #[arg(short = 'y', long)]
    numeric_priority: bool,
    /// Prints protocols as numbers
    #[arg(short = 'p', long)]
    numeric_protocol: bool,
    /// Prints spans of time in seconds
    #[arg(short = 'T', long)]
    numeric_time: bool,
    /// Prints ports by their names
    #[arg(short = 'S', long)]
    service: bool,
    /// Prints user and group names
    #[arg(short = 'u', long)]
    guid: bool,
    /// Prints what was added
    #[arg(short, long)]
    echo: bool,
    /// Changes nothing: rules become tables, whatever form they are written in
    #[arg(short, long)]
    optimize: bool,
    /// Prints the version
    #[arg(short, long, short_alias = 'V')]
    version: bool,
    /// Whose rules.
    #[command(flatten)]
    netns: NetnsArgs,
    /// A command: `list ruleset`, `add rule netdev TABLE CHAIN ...`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

fn define(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is wanted")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Options {
    fn print_options(&self, devices: &Devices) -> PrintOptions {
        PrintOptions {
            handles: self.handle,
            stateless: self.stateless,
            terse: self.terse,
            numeric: self.numeric,
            numeric_priority: self.numeric_priority,
            numeric_protocol: self.numeric_protocol,
            numeric_time: self.numeric_time,
            services: self.service.then(system_names),
            users: self.guid.then(system_names),
            interfaces: Some(Arc::new(devices.interfaces())),
        }
    }

    fn reading(&self) -> Reading {
        Reading {
            include_path: self.includepath.clone(),
            defines: self.define.clone(),
        }
    }
}

/// Runs what nft would run.
///
/// # Errors
///
/// Whatever is wrong with it; then nothing was changed.
pub fn run(args: NftArgs) -> Result<()> {
    let options = Options::parse_from(args.args);
    if options.version {
        let version = env!("CARGO_PKG_VERSION");
        return super::output::print(&format!("egress v{version}\n"));
    }
    if let Some(path) = &options.file {
        return run_source(&Source::read(path)?, &options);
    }
    if options.interactive {
        return interact(&options);
    }
    if options.command.is_empty() {
        bail!("nft: no command specified; `egress nft --help` shows the options");
    }
    let words: Vec<_> = options
        .command
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    if let [first, rest @ ..] = words.as_slice()
        && first == "monitor"
    {
        return monitor::run(rest, &options);
    }
    let source = Source {
        name: "<cmdline>".into(),
        text: format!("{}\n", words.join(" ")).into_bytes(),
    };
    run_source(&source, &options)
}

/// One command for each line; what is wrong with one does not keep the others from running.
fn interact(options: &Options) -> Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        if matches!(line.trim(), "quit" | "exit") {
            break;
        }
        let source = Source {
            name: "/dev/stdin".into(),
            text: line.into_bytes(),
        };
        if let Err(error) = run_source(&source, options) {
            eprintln!("{error:#}");
        }
    }
    Ok(())
}

fn run_source(source: &Source, options: &Options) -> Result<()> {
    let converted = if options.json {
        from_json(source)?
    } else {
        None
    };
    let source = converted.as_ref().unwrap_or(source);
    let reading = options.reading();
    let script = source.parse(&reading)?;
    let netns = Netns::open(options.netns.netns.as_deref())?;
    let (questions, changes): (Vec<_>, Vec<_>) = script.commands.iter().partition(|c| asks(c));
    let devices = netns.run(Devices::read)?;
    if options.check {
        let ruleset = source.apply(&running(&netns), &[], Some(&devices), &reading)?;
        if !changes.is_empty() {
            check::compile(&ruleset, &ImageOptions::default())?;
        }
    } else if !changes.is_empty() {
        let changed = load::load(source, &reading, &SettingsArgs::default(), &netns)?;
        if options.echo {
            echo(&changed, &devices, options)?;
        }
    }
    if !questions.is_empty() {
        answer(&questions, &script, (&netns, &devices), options)?;
    }
    Ok(())
}

/// With `-j`, what is read may be JSON; what is none is read as nft's text.
fn from_json(source: &Source) -> Result<Option<Source>> {
    let Ok(text) = std::str::from_utf8(&source.text) else {
        return Ok(None);
    };
    match json::read::to_text(text) {
        Ok(text) => Ok(Some(Source {
            name: source.name.clone(),
            text: text.into_bytes(),
        })),
        Err(json::read::JsonError::Syntax(_)) => Ok(None),
        Err(error) => bail!("{}: {error}", source.name),
    }
}

/// `-e`: what was added.
fn echo(changed: &load::Changed, devices: &Devices, options: &Options) -> Result<()> {
    let (before, after) = (&changed.before, &changed.after);
    let print = options.print_options(devices);
    let text = if options.json {
        let items = changes::added_json(before, after, &Initial, &print);
        format!("{}\n", serde_json::json!({ "nftables": items }))
    } else {
        let added = changes::added(before, after, &Initial, &print);
        let (generation, pid) = (changed.generation, std::process::id());
        format!("{added}# new generation {generation} by process {pid} (egress)\n")
    };
    super::output::print(&text)
}

/// What the system calls ports, users and groups; read once.
fn system_names() -> &'static Names {
    static NAMES: OnceLock<Names> = OnceLock::new();
    NAMES.get_or_init(source::names)
}

/// Whether a command only asks.
fn asks(command: &Command) -> bool {
    matches!(
        command.kind,
        CommandKind::List(_)
            | CommandKind::Reset(_)
            | CommandKind::GetElements(..)
            | CommandKind::Describe(_)
    )
}

/// The global ruleset that runs, to check against; nothing where it may not be read, so that files
/// that stand alone can be checked without privileges.
fn running(netns: &Netns) -> Ruleset {
    let read = || -> Result<Option<(Store, State)>> {
        match Pins::open()? {
            Some(pins) => generation::current(&pins, netns),
            None => Ok(None),
        }
    };
    match read() {
        Ok(Some((store, mut state))) => {
            match elements::Live::read(&store, &state) {
                Ok(live) => live.fill(&mut state),
                Err(error) => debug!("what is in sets cannot be read: {error:#}"),
            }
            std::mem::take(&mut state.global().ruleset)
        }
        Ok(None) => Ruleset::default(),
        Err(error) => {
            debug!("what runs cannot be read: {error:#}");
            Ruleset::default()
        }
    }
}

/// The elements that are asked for, where that is all.
fn named(questions: &[&Command], state: &State, devices: &Devices) -> Option<elements::Named> {
    let mut all = elements::Named::new();
    for scope in &state.scopes {
        let asked = questions.iter().copied();
        if let Some(named) = source::named_elements(&scope.ruleset, asked, devices) {
            let whose = named.into_iter();
            all.extend(whose.map(|(id, keys)| ((scope.id, id), keys)));
        }
    }
    (!all.is_empty()).then_some(all)
}

fn answer(
    questions: &[&Command],
    script: &Script,
    (netns, devices): (&Netns, &Devices),
    options: &Options,
) -> Result<()> {
    let print = options.print_options(devices);
    let pins = Pins::open()?;
    if let Some(pins) = &pins {
        generation::recover_all(pins);
    }
    let current = match &pins {
        Some(pins) => generation::current(pins, netns)?,
        None => None,
    };
    let current = match current {
        Some((store, mut state)) => {
            let named = named(questions, &state, devices);
            let looked_up = match named {
                Some(named) => elements::Live::look_up(&store, &state, named)?,
                None => None,
            };
            let live = match looked_up {
                Some(live) => live,
                None => elements::Live::read(&store, &state)?,
            };
            live.fill(&mut state);
            Some((store, state))
        }
        None => None,
    };
    for command in questions {
        let answer =
            listing::answer(current.as_ref(), command, &print).map_err(|failed| match failed {
                listing::Failed::Missing(error) => {
                    Diagnostics::new(vec![*error], script.sources.clone()).into()
                }
                listing::Failed::Other(error) => error,
            })?;
        if let (Some((store, state)), false) = (&current, options.check) {
            listing::reset(store, state, &answer.reset)?;
        }
        // A type is described in words whatever the form of listings.
        let described = matches!(command.kind, CommandKind::Describe(_));
        let text = match options.json && !described {
            true => format!("{}\n", json::nftables(answer.json)),
            false => answer.text,
        };
        super::output::print(&text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn options(line: &str) -> Options {
        Options::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn options_come_before_the_command() {
        Options::command().debug_assert();
        let parsed = options("-ann list ruleset");
        assert!(parsed.handle && parsed.numeric);
        assert_eq!(parsed.command, ["list", "ruleset"]);
        let parsed = options("-c -f x.nft -D a=b");
        assert!(parsed.check);
        assert_eq!(parsed.define, [("a".to_owned(), "b".to_owned())]);
        let parsed =
            options("add chain netdev t c { type filter hook egress device lo priority -5 ; }");
        assert_eq!(parsed.command.len(), 16);
        assert!(parsed.command.contains(&"-5".into()));
    }
}
