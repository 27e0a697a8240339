//! The command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use egress_lang::checked::Hook;

pub use crate::settings::Mode;
use crate::{
    kernel::rcu::Expedite,
    settings::{Budget, SkipMark, parse_u32},
};

/// An nftables-like filter on the egress side of Linux interfaces, in eBPF.
#[derive(Debug, Parser)]
#[command(name = "egress", version, max_term_width = 100)]
pub struct Cli {
    /// Says more on standard error; twice: for developers
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hooks interfaces and puts rules on them
    Attach(AttachArgs),
    /// Unhooks interfaces and removes all that was pinned for them
    Detach(DetachArgs),
    /// Applies a file as `nft -f` does: the devices named in it are hooked
    Load(LoadArgs),
    /// Checks a file as `nft -c -f` does; needs no privileges
    Check(CheckArgs),
    /// Says what rules do to the packets of a capture; needs no privileges
    Simulate(SimulateArgs),
    /// Says what rules do to a packet, and why; needs no privileges
    Explain(ExplainArgs),
    /// Lists what runs: `egress list ruleset`, as `egress nft list ruleset`
    List(ListArgs),
    /// Shows what is attached where, how, and what it saw
    Status(StatusArgs),
    /// Keeps a file or a directory of rules in force, on interfaces that come and go
    Watch(crate::watch::Args),
    /// Prints what runs in numbers, as OpenMetrics text
    Metrics(MetricsArgs),
    /// Refuses the socket option that goes around all tc programs, for a cgroup or the machine
    Guard(crate::commands::guard::Args),
    /// Writes what runs into a directory, rules and settings, for `restore`
    Save(SaveArgs),
    /// Puts in force what `save` wrote, as at boot; what is in force already stays untouched
    Restore(RestoreArgs),
    /// Shows rules and counters by rate
    Top(crate::top::Args),
    /// Prints what rules tell of packets (`log`, `meta nftrace set 1`) and the diagnostics of the programs in
    /// the kernel, until Ctrl-C
    Monitor(MonitorArgs),
    /// Takes nft(8)'s own command line, for `table netdev`
    Nft(NftArgs),
    /// Measures throughput with and without rules
    Bench(crate::bench::Args),
    /// Prints a completion script for a shell
    Completions(crate::commands::manual::CompletionsArgs),
    /// Writes man pages
    #[command(hide = true)]
    Man(crate::commands::manual::ManArgs),
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Interfaces to hook
    #[arg(required = true, value_name = "IFACE")]
    pub interfaces: Vec<String>,
    /// Rules for these interfaces; base chains without a device are bound to them (`-`: standard
    /// input). Without it every packet is accepted
    #[arg(short, long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Hooks only this side, also where the rules have no base chain for it
    #[arg(long)]
    pub hook: Option<HookName>,
    /// How the programs are attached.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Does not wait for the kernel's grace periods.
    #[command(flatten)]
    pub expedite: ExpediteArgs,
    /// Whose interfaces.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// Arguments of `detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// Interfaces to unhook
    #[arg(required_unless_present = "all", value_name = "IFACE")]
    pub interfaces: Vec<String>,
    /// Unhooks all interfaces of the network namespace and forgets all rules of it
    #[arg(long, conflicts_with = "interfaces")]
    pub all: bool,
    /// With --all: also what cannot be read, as where another version of this command put it there
    #[arg(long, requires = "all", conflicts_with = "interfaces")]
    pub force: bool,
    /// Does not wait for the kernel's grace periods.
    #[command(flatten)]
    pub expedite: ExpediteArgs,
    /// Whose interfaces.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// Arguments of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// nft commands or tables; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How the programs are attached.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Does not wait for the kernel's grace periods.
    #[command(flatten)]
    pub expedite: ExpediteArgs,
    /// Whose interfaces.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// nft commands or tables; `-` is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Interfaces that base chains without a device are taken to be bound to, as by `attach`
    #[arg(value_name = "IFACE")]
    pub interfaces: Vec<String>,
    /// Shows what the rules become: the order of fields, the size of the tables, the longest way
    #[arg(long)]
    pub stats: bool,
    /// Prints the statistics as JSON
    #[arg(short, long, requires = "stats")]
    pub json: bool,
    /// Says nothing of rules that can never match or change nothing, and of unused sets
    #[arg(long)]
    pub no_warnings: bool,
    /// Bytes that the tables of one hook may take: 64M, 500K
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<Budget>,
}

/// Which rules are asked, and as what.
#[derive(Debug, Args)]
pub struct OfflineArgs {
    /// nft commands or tables; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    pub rules: PathBuf,
    /// Interface that the packets are at; base chains without a device are bound to it. Without it, the
    /// one that the rules name, or `eth0`
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
    /// Which way the packets go
    #[arg(long, default_value = "egress")]
    pub hook: HookName,
    /// The packets' mark (`meta mark`)
    #[arg(long, value_name = "MARK", default_value = "0", value_parser = parse_u32)]
    pub mark: u32,
    /// Bytes that the tables of one hook may take: 64M, 500K
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<Budget>,
    /// Prints JSON; of a capture, a line for each packet and a last one for the summary
    #[arg(short, long)]
    pub json: bool,
}

/// Arguments of `simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Which rules.
    #[command(flatten)]
    pub offline: OfflineArgs,
    /// Packets, as pcap or pcapng: Ethernet frames or raw IP (`-`: standard input)
    #[arg(long, value_name = "IN")]
    pub pcap: PathBuf,
    /// Writes those that pass to this file, as pcap
    #[arg(long, value_name = "OUT")]
    pub pcap_out: Option<PathBuf>,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Which rules.
    #[command(flatten)]
    pub offline: OfflineArgs,
    /// An Ethernet frame in hex, or a short form: `ip 10.0.0.1 > 10.0.0.2 udp 1000 > 53`,
    /// `vlan 5 ip6 fe80::1 > ff02::1 icmpv6 type 135`, `arp who-has 10.0.0.1 tell 10.0.0.2`,
    /// `ether type 0x88f7` (`-`: standard input)
    #[arg(required = true, value_name = "PACKET")]
    pub packet: Vec<String>,
    /// Packets with this mark are not classified, and its bits are cleared
    #[arg(long, value_name = "VALUE[/MASK]")]
    pub skip_mark: Option<SkipMark>,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Whose rules.
    #[command(flatten)]
    pub netns: NetnsArgs,
    /// What to list, and nft's options: `ruleset`, `-a`, `-j`, `-s`, `-n`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "WHAT"
    )]
    pub what: Vec<OsString>,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Prints JSON
    #[arg(short, long)]
    pub json: bool,
    /// Only this network namespace.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// Arguments of `metrics`.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Only this network namespace.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// Arguments of `save`.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Where to write; what `save` wrote there before is replaced in one step
    #[arg(value_name = "DIRECTORY", default_value = crate::saved::DEFAULT)]
    pub directory: PathBuf,
    /// Saves what the counters stand at, too
    #[arg(long)]
    pub counters: bool,
    /// Only this network namespace.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// What `save` wrote
    #[arg(value_name = "DIRECTORY", default_value = crate::saved::DEFAULT)]
    pub directory: PathBuf,
    /// Waits for interfaces and namespaces that are not there yet
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
    /// Leaves out interfaces and namespaces that are not there, and says so
    #[arg(long)]
    pub skip_missing: bool,
    /// Does not wait for the kernel's grace periods.
    #[command(flatten)]
    pub expedite: ExpediteArgs,
}

/// Arguments of `monitor`.
#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// What to tell of: packets that `log` statements match, in the form of the kernel's log (this where
    /// nothing is named), or the way of packets that `meta nftrace set 1` matches
    #[arg(value_name = "WHAT")]
    pub what: Vec<MonitorWhat>,
    /// Prints a JSON object in a line for each
    #[arg(short, long)]
    pub json: bool,
    /// Writes the packets that `log` statements match to this file instead, with their rules as comments
    #[arg(long, value_name = "FILE")]
    pub pcapng: Option<PathBuf>,
    /// Only of `log` statements with this group
    #[arg(long, value_name = "NUMBER")]
    pub group: Option<u16>,
    /// Whose programs.
    #[command(flatten)]
    pub netns: NetnsArgs,
}

/// What `monitor` tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MonitorWhat {
    /// Packets that `log` statements match
    Log,
    /// The way of packets that `meta nftrace set 1` matches
    Trace,
}

/// Arguments of `nft`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct NftArgs {
    /// nft's options and command: `-f FILE`, `list ruleset`, `add rule netdev ...`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    pub args: Vec<OsString>,
}

/// How programs are attached.
#[derive(Debug, Clone, Default, Args)]
pub struct SettingsArgs {
    /// How programs are attached: TCX where the kernel has it (Linux 6.6), else the clsact qdisc
    #[arg(long)]
    pub mode: Option<Mode>,
    /// Packets with this mark are not classified, and its bits are cleared
    #[arg(long, value_name = "VALUE[/MASK]")]
    pub skip_mark: Option<SkipMark>,
    /// The programs log their own diagnostics, for `egress monitor`
    #[arg(long)]
    pub log_diagnostics: bool,
    /// Bytes that the tables of one hook may take: 64M, 500K
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<Budget>,
}

/// How long the kernel takes for each TCX link.
#[derive(Debug, Clone, Default, Args)]
pub struct ExpediteArgs {
    /// Has the kernel interrupt all processors for each TCX link instead of waiting for them
    /// (/sys/kernel/rcu_expedited is 1 meanwhile); `--expedite` alone: always
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value = "auto",
        default_missing_value = "always"
    )]
    pub expedite: Expedite,
}

/// Which network namespace.
#[derive(Debug, Clone, Default, Args)]
pub struct NetnsArgs {
    /// Network namespace: a name of `ip netns`, a process id, or a path
    #[arg(long, value_name = "NAME|PID|PATH")]
    pub netns: Option<OsString>,
}

/// The hooks by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HookName {
    /// Packets that leave the interface
    Egress,
    /// Packets that come in
    Ingress,
}

impl From<HookName> for Hook {
    fn from(name: HookName) -> Self {
        match name {
            HookName::Egress => Self::Egress,
            HookName::Ingress => Self::Ingress,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
