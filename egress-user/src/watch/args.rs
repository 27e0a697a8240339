//! The command line of `watch`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use crate::cli::SettingsArgs;

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file of nft commands or tables, or a directory with such files (`*.nft`, in the order of their
    /// names). Devices may be patterns (`"veth*"`) and groups (`"group:7"`, `"group:tenants"`); those
    /// that are not there yet are waited for
    #[arg(value_name = "FILE|DIRECTORY")]
    pub rules: PathBuf,
    /// Does what there is to do now, and ends
    #[arg(long)]
    pub once: bool,
    /// Serves the metrics: a port of 127.0.0.1, or an address with a port
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = address)]
    pub listen: Option<SocketAddr>,
    /// How the programs are attached.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Watches this network namespace (a name of `ip netns`, a process id, or a path), also one that
    /// comes later; may be given several times. Without it, that of the command
    #[arg(long, value_name = "NAME|PID|PATH")]
    pub netns: Vec<std::ffi::OsString>,
    /// With --netns: that of the command, too
    #[arg(long, requires = "netns")]
    pub own: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse()
        .map_err(|_| format!("`{text}` is no port, and no address with a port: 9617, [::1]:9617"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_loopback() {
        assert_eq!(address("9617").unwrap().to_string(), "127.0.0.1:9617");
        assert_eq!(address("[::]:1").unwrap().to_string(), "[::]:1");
        for wrong in ["", "x", "65536", "localhost:1", "1.2.3.4"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
