//! Network namespaces without names: they are gone with the last descriptor.

use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
};

use super::{
    socket::PacketSocket,
    tool::{self, Said},
};

/// The interface that rules are put on, in every namespace of the tests.
pub const DEVICE: &str = "egt0";

/// Its index, so that rules about indexes mean the same everywhere.
pub const IFINDEX: u32 = 77;

/// The other end of [`DEVICE`].
pub const PEER: &str = "egt1";

/// MAC address of [`DEVICE`].
pub const DEVICE_MAC: &str = "02:00:00:00:00:01";

/// MAC address of [`PEER`].
pub const PEER_MAC: &str = "02:00:00:00:00:02";

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Netns {
    file: Arc<File>,
}

impl Netns {
    /// A new one, with `lo` up and IPv6 off but where it is asked for: nothing is sent but what
    /// tests send.
    pub fn new() -> Self {
        let file = thread::spawn(|| {
            // SAFETY: moves this thread only, and touches no memory.
            let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "unshare: {}", std::io::Error::last_os_error());
            File::open("/proc/thread-self/ns/net").unwrap()
        })
        .join()
        .unwrap();
        let netns = Self::of(file);
        netns.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        netns
    }

    /// The one behind an open file.
    pub fn of(file: File) -> Self {
        Self {
            file: Arc::new(file),
        }
    }

    /// The one at a path, such as /proc/PID/ns/net.
    pub fn at(path: &Path) -> Self {
        Self::of(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Runs `work` on a thread in this namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let entered = thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(self.file.as_raw_fd(), libc::CLONE_NEWNET).unwrap();
                    work()
                })
                .join()
        });
        entered.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Makes a command run in this namespace.
    pub fn enter(&self, command: &mut Command) {
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec it makes one system call and allocates nothing.
        unsafe { command.pre_exec(move || enter(file.as_raw_fd(), libc::CLONE_NEWNET)) };
    }

    /// Runs a program of this machine in this namespace.
    pub fn tool(&self, name: &str, arguments: &[&str], stdin: &str) -> Said {
        let mut command = Command::new(tool::path(name));
        command.args(arguments);
        self.enter(&mut command);
        tool::run(&mut command, stdin.as_bytes())
    }

    /// Runs commands of ip(8), one in a line.
    #[track_caller]
    pub fn ip(&self, commands: &str) -> String {
        self.tool("ip", &["-batch", "-"], commands).success()
    }

    /// Runs commands of tc(8), one in a line.
    #[track_caller]
    pub fn tc(&self, commands: &str) -> String {
        self.tool("tc", &["-batch", "-"], commands).success()
    }

    /// Runs a script of nft(8).
    pub fn nft(&self, script: &str) -> Said {
        self.tool("nft", &["-f", "-"], script)
    }

    /// What nft(8) lists.
    #[track_caller]
    pub fn nft_list(&self) -> String {
        self.tool("nft", &["list", "ruleset"], "").success()
    }

    /// Sets what is below /proc/sys, where the kernel has it.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = Path::new("/proc/sys").join(name);
        self.run(|| {
            if path.exists() {
                std::fs::write(&path, value)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        });
    }

    /// The descriptor, as a path that commands of this process's children can open.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// The descriptor.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Enters a namespace: this thread, or a process that has only one.
pub fn enter(fd: i32, kind: i32) -> std::io::Result<()> {
    // SAFETY: touches no memory.
    match unsafe { libc::setns(fd, kind) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A veth pair: [`DEVICE`] in one namespace, [`PEER`] in another, both up, without addresses.
#[derive(Debug, Clone)]
pub struct Wire {
    pub near: Netns,
    pub far: Netns,
}

impl Wire {
    pub fn new() -> Self {
        let (near, far) = (Netns::new(), Netns::new());
        let wire = Self { near, far };
        wire.lay(DEVICE, PEER, Some(IFINDEX));
        wire
    }

    /// Adds another pair between the two namespaces.
    pub fn lay(&self, device: &str, peer: &str, index: Option<u32>) {
        let index = index.map_or(String::new(), |index| format!("index {index}"));
        self.near.ip(&format!(
            "link add {device} address {DEVICE_MAC} {index} type veth peer name {peer} address \
             {PEER_MAC} netns {far}\n\
             link set {device} up\n",
            far = self.far.path(),
        ));
        self.far
            .ip(&format!("link set {peer} up\nlink set lo up\n"));
    }

    /// Gives both ends an address: 198.18.9.1/24 and 198.18.9.2/24, and fd00:9::1/64 and
    /// fd00:9::2/64; the neighbours know each other, so no ARP and no neighbour discovery.
    pub fn address(&self) {
        let ends = [
            (&self.near, DEVICE, "1", "2", PEER_MAC),
            (&self.far, PEER, "2", "1", DEVICE_MAC),
        ];
        for (netns, device, own, other, mac) in ends {
            for name in ["all", device] {
                netns.sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0");
            }
            netns.ip(&format!(
                "link set {device} addrgenmode none\n\
                 addr add 198.18.9.{own}/24 dev {device}\n\
                 addr add fd00:9::{own}/64 dev {device} nodad\n\
                 neigh replace 198.18.9.{other} lladdr {mac} nud permanent dev {device}\n\
                 neigh replace fd00:9::{other} lladdr {mac} nud permanent dev {device}\n"
            ));
        }
    }

    /// A packet socket on [`DEVICE`].
    pub fn sender(&self) -> PacketSocket {
        PacketSocket::open(&self.near, DEVICE)
    }

    /// A packet socket on [`PEER`].
    pub fn receiver(&self) -> PacketSocket {
        PacketSocket::open(&self.far, PEER)
    }
}
