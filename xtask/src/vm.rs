//! `cargo xtask vm`: boots a Debian kernel in QEMU, runs a command in it, returns its exit status.
//!
//! Always by software emulation (TCG): it works everywhere, and with `--icount` one virtual
//! nanosecond is one guest instruction, so that rates measured inside repeat to about 0.1 %, whatever
//! else this machine does. The kernel runs with its default mitigations, as on a real machine.
//!
//! Inside: bash, busybox's applets, ip, tc, nft, ethtool, bpftool, tcpdump, setpriv as on this machine, and
//! `egress` if it was built. Where busybox has an applet of the same name (ip, tc), the applet is left
//! out.

use std::{
    fs,
    io::{BufRead as _, BufReader, IsTerminal as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    initramfs::{self, Initramfs},
    place,
    setup::{
        self,
        kernel::{self, Version},
    },
};

/// Modules that are loaded before the command runs, where the kernel has them.
#[rustfmt::skip]
const MODULES: &[&str] = &[
    // nf_tables' libcrc32c asks for it at run time, not as a dependency
    "crc32c_generic",
    // Devices
    "dummy", "veth", "vxlan", "ifb", "bridge", "8021q", "macvlan", "tun", "vrf", "pktgen",
    // Traffic control
    "sch_ingress", "sch_prio", "sch_htb", "sch_netem", "sch_fq", "sch_fq_codel", "cls_bpf", "cls_u32",
    "cls_matchall", "cls_flower", "cls_basic", "act_bpf", "act_gact", "act_mirred", "act_pedit",
    "act_skbedit", "act_vlan", "act_police",
    // Packet sockets and netfilter
    "af_packet", "nf_tables", "nft_objref", "nft_limit", "nft_quota", "nft_log", "nf_dup_netdev", "nft_fwd_netdev",
    "nft_dup_netdev", "nft_hash", "nft_numgen", "nft_reject_netdev", "nft_fib_netdev", "nft_ct",
    "nf_log_syslog", "nfnetlink_log",
    // IPsec
    "xfrm_user", "esp4", "authenc", "echainiv", "crypto_null",
];

/// Programs of this machine that the guest gets, where they are installed.
const PROGRAMS: &[&str] = &[
    "ip", "tc", "bridge", "ss", "nft", "ethtool", "bpftool", "tcpdump", "setpriv",
];

/// Data files of those programs: names of protocols and services, iproute2's tables.
const DATA: &[&str] = &[
    "/etc/protocols",
    "/etc/services",
    "/etc/ethertypes",
    "/etc/iproute2",
    "/usr/lib/iproute2",
    "/usr/share/iproute2",
    "/usr/lib/tc",
];

/// The program that all others need in the guest.
const INIT: &str = include_str!("../vm/init");

/// The arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The kernel
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Version,
    /// One virtual nanosecond is one instruction: rates repeat exactly (implies one CPU)
    #[arg(long)]
    icount: bool,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "icount")]
    smp: u32,
    /// Memory in MiB
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    mem: u32,
    /// A file or directory to copy into the guest (default: at / under its own name)
    #[arg(long, value_name = "HOST[:GUEST]")]
    file: Vec<String>,
    /// Seconds after which the machine is switched off, with status 124
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// What to run: several words are a command with arguments, one word is a line for the shell;
    /// without any, an interactive shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `cargo xtask vm`.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut machine = Machine::new(args.kernel);
    machine.icount = args.icount;
    machine.cpus = args.smp;
    machine.memory = args.mem;
    machine.timeout = Duration::from_secs(args.timeout);
    machine.script = match args.command.as_slice() {
        [] if !std::io::stdin().is_terminal() => bail!("a shell needs a terminal; give a command"),
        [] => {
            machine.timeout = Duration::MAX;
            None
        }
        [line] => Some(line.clone()),
        words => Some(
            words
                .iter()
                .map(|word| quote(word))
                .collect::<Vec<_>>()
                .join(" "),
        ),
    };
    for file in &args.file {
        let (host, guest) = match file.split_once(':') {
            Some((host, guest)) => (PathBuf::from(host), guest.to_owned()),
            None => {
                let name = Path::new(file)
                    .file_name()
                    .context("--file needs a file's name")?;
                (PathBuf::from(file), format!("/{}", name.display()))
            }
        };
        machine.files.push((host, guest));
    }
    let built = place::target()?.join("release/egress");
    if built.is_file() {
        machine.files.push((built, "/bin/egress".into()));
    }
    setup::vm(&[args.kernel])?;
    let status = machine.boot(None)?;
    Ok(ExitCode::from(status))
}

/// A virtual machine that runs one script.
pub struct Machine {
    kernel: Version,
    /// Whether time is counted in instructions.
    pub icount: bool,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory: u32,
    /// How long it may run.
    pub timeout: Duration,
    /// Files of this machine, and where they go.
    pub files: Vec<(PathBuf, String)>,
    /// Environment of the script.
    pub environment: Vec<(String, String)>,
    /// Shell script; an interactive shell without one.
    pub script: Option<String>,
}

impl Machine {
    /// A machine with one CPU and nothing to do.
    pub fn new(kernel: Version) -> Self {
        Self {
            kernel,
            icount: false,
            cpus: 1,
            memory: 1024,
            timeout: Duration::from_secs(600),
            files: Vec::new(),
            environment: vec![("EGRESS_VM".into(), "1".into())],
            script: None,
        }
    }

    /// Boots, runs the script and returns its exit status (124 after the timeout). Its output, lines
    /// on standard output and standard error in one, goes to `on_line`, or to our standard output.
    pub fn boot(&self, on_line: Option<&mut dyn FnMut(&str)>) -> Result<u8> {
        let directory = Scratch::new()?;
        let kernel = kernel::ensure(self.kernel)?;
        let initrd = directory.0.join("initrd");
        self.initramfs(&kernel)?.write(&initrd)?;
        let status = directory.0.join("status");

        let mut qemu = self.qemu(&kernel, &initrd, &status)?;
        qemu.stdin(if self.script.is_some() {
            Stdio::null()
        } else {
            Stdio::inherit()
        });
        if on_line.is_some() {
            qemu.stdout(Stdio::piped());
        }
        let mut child = qemu.spawn().context("running qemu-system-x86_64")?;
        let lines = child.stdout.take();
        let ended = thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&mut child, self.timeout));
            if let (Some(on_line), Some(lines)) = (on_line, lines) {
                // By bytes: what a test prints need not be UTF-8.
                for line in BufReader::new(lines).split(b'\n').map_while(Result::ok) {
                    on_line(String::from_utf8_lossy(&line).trim_end_matches('\r'));
                }
            }
            waiting.join()
        });
        let ended = ended.map_err(|_| anyhow::anyhow!("waiting for QEMU panicked"))??;
        if !ended {
            eprintln!(
                "the virtual machine was switched off after {:?}",
                self.timeout
            );
            return Ok(124);
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let Ok(status) = text.trim().parse() else {
            bail!(
                "Linux {} ended without an exit status: it crashed",
                kernel.release
            )
        };
        Ok(status)
    }

    fn qemu(&self, kernel: &kernel::Kernel, initrd: &Path, status: &Path) -> Result<Command> {
        let mut append =
            "console=ttyS0 quiet loglevel=2 panic=1 oops=panic net.ifnames=0".to_owned();
        let mut qemu = setup::qemu::command()?;
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ]);
        let cpu = if self.icount {
            // Nothing from outside may differ between two runs: no second thread, not the time of
            // day, not the place where the kernel lies.
            append += " nokaslr";
            qemu.args(["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"]);
            qemu.args(["-rtc", "base=2026-01-01,clock=vm"]);
            "max"
        } else {
            qemu.args(["-accel", "tcg,thread=multi", "-smp", &self.cpus.to_string()]);
            // A repeated string instruction is emulated byte by byte: a fifth of the time.
            "max,-erms,-fsrm"
        };
        qemu.args(["-cpu", cpu, "-m", &self.memory.to_string()]);
        qemu.arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initrd);
        qemu.args(["-append", &append, "-serial", "stdio", "-serial"]);
        qemu.arg(format!("file:{}", status.display()));
        Ok(qemu)
    }

    fn initramfs(&self, kernel: &kernel::Kernel) -> Result<Initramfs> {
        let mut root = Initramfs::new();
        root.file("/init", INIT, 0o755);
        root.file("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n", 0o644);
        root.file("/etc/group", "root:x:0:\n", 0o644);
        root.file("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644);
        root.file("/etc/nsswitch.conf", "", 0o644);
        root.modules(kernel, MODULES)?;

        let bash = place::program("bash").context("bash is missing")?;
        root.copy(&bash, "/bin/bash")?;
        root.link("/bin/sh", "bash");
        for program in PROGRAMS {
            if let Some(path) = place::program(program) {
                root.copy(&path, &format!("/usr/sbin/{program}"))?;
                root.link(
                    &format!("/usr/bin/{program}"),
                    &format!("../sbin/{program}"),
                );
            }
        }
        for data in DATA.iter().map(Path::new).filter(|data| data.exists()) {
            root.copy(data, &data.to_string_lossy())?;
        }
        let busybox = place::program("busybox").context("busybox is missing")?;
        root.copy(&busybox, "/bin/busybox")?;
        for applet in initramfs::busybox_applets(&busybox)? {
            if !PROGRAMS.contains(&applet.as_str()) {
                root.link(&format!("/usr/bin/{applet}"), "busybox");
            }
        }
        for (host, guest) in &self.files {
            root.copy(host, guest)?;
        }

        let environment: String = self
            .environment
            .iter()
            .map(|(name, value)| format!("export {name}={}\n", quote(value)))
            .collect();
        root.file("/task/environment", environment, 0o644);
        if let Some(script) = &self.script {
            root.file("/task/command", format!("{script}\n"), 0o755);
        }
        Ok(root)
    }
}

/// Whether QEMU ended by itself before `timeout`; else it is killed.
fn wait(qemu: &mut Child, timeout: Duration) -> Result<bool> {
    let began = Instant::now();
    loop {
        if let Some(status) = qemu.try_wait().context("waiting for QEMU")? {
            ensure!(status.success(), "QEMU: {status}");
            return Ok(true);
        }
        if began.elapsed() >= timeout {
            qemu.kill().context("stopping QEMU")?;
            qemu.wait().context("waiting for QEMU")?;
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A directory of this run alone, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("egress-vm-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing that can be done about it here, and nothing but disk space lost.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A word for the shell, taken literally.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
