//! What needs neither root nor a kernel: `egress simulate` and `egress explain`.

use std::process::Command;

use super::tool::{self, Said};

/// Several chains, each with something to say.
pub const RULES: &str = "table netdev t {
	chain sub {
		udp dport 53 counter drop
		counter
	}
	chain out {
		type filter hook egress priority 0; policy accept;
		arp operation request counter accept
		ip daddr 10.0.0.0/8 jump sub
		counter tcp dport vmap { 22 : drop, 443 : jump sub }
		ether type 0x88f7 drop
	}
	chain first {
		type filter hook egress priority -10; policy drop;
		meta length 1-1000 accept
	}
}
";

pub fn egress(arguments: &[&str], stdin: &[u8]) -> Said {
    let mut command = Command::new(tool::egress());
    command.args(arguments);
    tool::run(&mut command, stdin)
}
