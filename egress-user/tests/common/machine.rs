//! A machine of a test's own: a process namespace and a mount namespace with bpffs.
//!
//! The command keeps what it pins in the mount namespace of its oldest ancestor, which is the first
//! process of this process namespace. It ends with its standard input, so with the test.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use super::{
    netns::{self, Netns},
    tool::{self, Said},
};

/// Such a machine.
#[derive(Debug)]
pub struct Machine {
    first: Child,
    processes: File,
    mounts: File,
}

impl Machine {
    pub fn new() -> Self {
        // `ip netns add` inside wants it to be there.
        let _ = std::fs::create_dir_all("/run/netns");
        let first = thread::spawn(|| {
            // SAFETY: touches no memory; this thread's children go to a new process namespace.
            let done = unsafe { libc::unshare(libc::CLONE_NEWPID) };
            assert_eq!(done, 0, "unshare: {}", io::Error::last_os_error());
            let mut command = Command::new(tool::path("cat"));
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            // SAFETY: between fork and exec it makes system calls with constants.
            unsafe { command.pre_exec(furnish) };
            command.spawn().unwrap()
        })
        .join()
        .unwrap();
        let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", first.id())).unwrap();
        Self {
            processes: open("pid"),
            mounts: open("mnt"),
            first,
        }
    }

    /// A program to run inside, in a network namespace.
    pub fn command(&self, program: &PathBuf, netns: &Netns) -> Command {
        let mut command = Command::new(program);
        netns.enter(&mut command);
        let mounts = self.mounts.try_clone().unwrap();
        // SAFETY: between fork and exec it makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(move || netns::enter(mounts.as_raw_fd(), libc::CLONE_NEWNS));
        }
        command
    }

    /// Starts a command inside, with pipes to it.
    pub fn spawn(&self, command: &mut Command, stdin: bool) -> Child {
        self.inside(|| tool::spawn(command, stdin))
    }

    /// Runs a program inside.
    pub fn run(&self, netns: &Netns, program: &str, arguments: &[&str], stdin: &[u8]) -> Said {
        let mut command = self.command(&tool::path(program), netns);
        command.args(arguments);
        self.finish(command, stdin)
    }

    /// Runs `egress` inside.
    pub fn egress(&self, netns: &Netns, arguments: &[&str]) -> Said {
        self.egress_with(netns, arguments, b"")
    }

    /// Runs `egress` inside, with this on its standard input.
    pub fn egress_with(&self, netns: &Netns, arguments: &[&str], stdin: &[u8]) -> Said {
        let mut command = self.command(&tool::egress(), netns);
        command.args(arguments);
        self.finish(command, stdin)
    }

    /// Runs a prepared command to its end.
    pub fn finish(&self, mut command: Command, stdin: &[u8]) -> Said {
        let what = format!("{command:?}");
        let mut child = self.spawn(&mut command, true);
        let mut input = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        // It may end without reading all.
        let writer = thread::spawn(move || drop(io::Write::write_all(&mut input, &stdin)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Said::of(what, output)
    }

    /// Puts rules on a device.
    #[track_caller]
    pub fn attach(&self, netns: &Netns, device: &str, rules: &str) {
        self.egress_with(netns, &["attach", device, "--rules", "-"], rules.as_bytes())
            .success();
    }

    /// A path inside as this process reaches it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.first.id()))
    }

    /// Everything in bpffs, relative to its root, sorted.
    pub fn pins(&self) -> Vec<String> {
        let root = self.path("/sys/fs/bpf");
        let mut found = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(directory) = open.pop() {
            // A command may be removing what is listed.
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = path.strip_prefix(&root).unwrap();
                // The kernel makes these two in every bpffs that it was built for.
                if name.display().to_string().ends_with(".debug") {
                    continue;
                }
                found.push(name.display().to_string());
                if path.is_dir() {
                    open.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// A network namespace with a name of `ip netns`, which only this machine knows.
    pub fn named_netns(&self, name: &str) -> Netns {
        let any = Netns::new();
        self.run(&any, "ip", &["netns", "add", name], b"").success();
        Netns::at(&self.path(&format!("/run/netns/{name}")))
    }

    /// The number that a process inside has there.
    pub fn inside_pid(&self, process: &Child) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("NSpid:"));
        let last = line.and_then(|line| line.split_whitespace().last());
        last.unwrap().to_owned()
    }

    /// Runs `work` on a thread whose children are inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let done = thread::scope(|scope| {
            scope
                .spawn(|| {
                    netns::enter(self.processes.as_raw_fd(), libc::CLONE_NEWPID).unwrap();
                    work()
                })
                .join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All processes inside end with the first.
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

/// The first process makes its mounts.
fn furnish() -> io::Result<()> {
    let mount = |source: &std::ffi::CStr, target: &std::ffi::CStr, kind, flags| {
        let kind: Option<&std::ffi::CStr> = kind;
        // SAFETY: all strings end with a zero byte; the last argument may be null.
        let done = unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                kind.map_or(std::ptr::null(), |kind| kind.as_ptr()),
                flags,
                std::ptr::null(),
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: touches no memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    mount(c"proc", c"/proc", Some(c"proc"), 0)?;
    mount(c"bpf", c"/sys/fs/bpf", Some(c"bpf"), 0)?;
    mount(c"tmpfs", c"/run/netns", Some(c"tmpfs"), 0)
}
