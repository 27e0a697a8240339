//! The directory that all pins are in, and the lock on it.
//!
//! `/sys/fs/bpf/egress`, mode 0700. The lock is flock(2) on the directory itself, so that nothing is
//! left behind.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::Uid,
};

use crate::kernel::capability::NeedsSysAdmin;

/// Where bpffs is mounted.
const MOUNT_POINT: &str = "/sys/fs/bpf";

/// Our directory in it.
const DIRECTORY: &str = "egress";

/// The pin directory, locked against all other commands until this is dropped.
#[derive(Debug)]
pub struct Pins {
    /// As this process reaches it.
    path: PathBuf,
    /// Keeps `path` valid: it leads through this descriptor.
    _bpffs: File,
    _lock: Flock<File>,
}

impl Pins {
    /// Locks the directory; mounts bpffs and makes the directory where they are missing.
    ///
    /// # Errors
    ///
    /// Where there is no bpffs and none can be mounted, or without the right to write to it.
    pub fn open_or_create() -> Result<Self> {
        let bpffs = open_bpffs(true)?.context("no bpffs")?;
        let path = own_directory(&bpffs);
        loop {
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("making {MOUNT_POINT}/{DIRECTORY}"));
                }
            }
            if let Some(lock) = lock(&path)? {
                return Ok(Self {
                    path,
                    _bpffs: bpffs,
                    _lock: lock,
                });
            }
        }
    }

    /// Locks the directory; `None` where there is none, so that nothing of ours can be running.
    ///
    /// # Errors
    ///
    /// Without the right to read it.
    pub fn open() -> Result<Option<Self>> {
        let Some(bpffs) = open_bpffs(false)? else {
            return Ok(None);
        };
        let path = own_directory(&bpffs);
        while path
            .try_exists()
            .context(format!("{MOUNT_POINT}/{DIRECTORY}"))?
        {
            if let Some(lock) = lock(&path)? {
                return Ok(Some(Self {
                    path,
                    _bpffs: bpffs,
                    _lock: lock,
                }));
            }
        }
        Ok(None)
    }

    /// The directory of the network namespace with this cookie.
    pub fn of_netns(&self, cookie: u64) -> PathBuf {
        self.path.join(format!("net-{cookie}"))
    }

    /// The directory of the guards.
    pub fn guards(&self) -> PathBuf {
        self.path.join("guard")
    }

    /// The directories of all network namespaces, with their cookies.
    ///
    /// # Errors
    ///
    /// Where the directory cannot be read.
    pub fn all(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path).context("reading the pin directory")? {
            let entry = entry.context("reading the pin directory")?;
            let name = entry.file_name();
            let cookie = name.to_str().and_then(|name| name.strip_prefix("net-"));
            if let Some(cookie) = cookie.and_then(|cookie| cookie.parse().ok()) {
                all.push((cookie, entry.path()));
            }
        }
        all.sort_unstable();
        Ok(all)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Succeeds only where it is empty: then nothing of ours is left. Who waits for the lock
        // finds the directory gone and makes a new one.
        let _ = fs::remove_dir(&self.path);
    }
}

/// The pin directory, without the lock: only to look at.
#[derive(Debug)]
pub struct Glance {
    path: PathBuf,
    /// Keeps `path` valid: it leads through this descriptor.
    _bpffs: File,
}

impl Glance {
    /// Opens the directory; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Without the right to read it.
    pub fn new() -> Result<Option<Self>> {
        let Some(bpffs) = open_bpffs(false)? else {
            return Ok(None);
        };
        let path = own_directory(&bpffs);
        match fs::metadata(&path) {
            Ok(metadata) => trust(&metadata)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("{MOUNT_POINT}/{DIRECTORY}"));
            }
        }
        Ok(Some(Self {
            path,
            _bpffs: bpffs,
        }))
    }

    /// The directory of the network namespace with this cookie.
    pub fn of_netns(&self, cookie: u64) -> PathBuf {
        self.path.join(format!("net-{cookie}"))
    }
}

fn own_directory(bpffs: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", bpffs.as_raw_fd())).join(DIRECTORY)
}

/// Waits for the lock; `None` where the directory was removed meanwhile.
fn lock(path: &Path) -> Result<Option<Flock<File>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("opening {MOUNT_POINT}/{DIRECTORY}"));
        }
    };
    let metadata = file.metadata()?;
    trust(&metadata)?;
    let inode = metadata.ino();
    let lock = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| io::Error::from(error))
        .with_context(|| format!("locking {MOUNT_POINT}/{DIRECTORY}"))?;
    let still = fs::metadata(path).is_ok_and(|metadata| metadata.ino() == inode);
    Ok(still.then_some(lock))
}

/// A bpffs may be writable for all: who made the directory could exchange what is pinned in it.
fn trust(metadata: &fs::Metadata) -> Result<()> {
    let trusted = [0, Uid::effective().as_raw()].contains(&metadata.uid());
    if !trusted || metadata.mode() & 0o022 != 0 {
        bail!(
            "{MOUNT_POINT}/{DIRECTORY} belongs to user {} with mode {:o}, so it is not to be \
             trusted; remove it",
            metadata.uid(),
            metadata.mode() & 0o7777
        );
    }
    Ok(())
}

/// Opens the mount point, so that it stays reachable whatever becomes of the mount namespace.
fn open_bpffs(mount_it: bool) -> Result<Option<File>> {
    let root = lasting_root();
    let path = root.join(MOUNT_POINT.trim_start_matches('/'));
    if !is_bpffs(&path) {
        if !mount_it {
            return Ok(None);
        }
        mount_bpffs(&root)
            .context(NeedsSysAdmin("mounting one failed"))
            .with_context(|| no_bpffs(&path))?;
        if !is_bpffs(&path) {
            bail!(no_bpffs(&path));
        }
    }
    let file = File::open(&path).with_context(|| format!("opening {MOUNT_POINT}"))?;
    Ok(Some(file))
}

/// What to say where there is none at `path`, which is how this process reaches the mount point.
fn no_bpffs(path: &Path) -> String {
    let hint = if path.is_dir() {
        format!("`mount -t bpf bpf {MOUNT_POINT}` as root of the machine makes one")
    } else {
        "the directory is made by a kernel with BPF when sysfs is mounted".into()
    };
    format!("no bpffs at {MOUNT_POINT}, where rules are kept ({hint})")
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// The root directory of the mount namespace that lasts: that of the oldest ancestor.
///
/// `ip netns exec` and `unshare -m` make mount namespaces that end with their command. `ip netns
/// exec` mounts a new /sys there: what is pinned below it would be gone with the command, and with
/// it every rule.
fn lasting_root() -> PathBuf {
    let own = fs::metadata("/proc/self/ns/mnt").map(|metadata| metadata.ino());
    let Ok(own) = own else {
        return PathBuf::from("/");
    };
    let mut found = PathBuf::from("/");
    let mut process = "self".to_owned();
    // No tree of processes is as high as this; the bound is there for a /proc that lies.
    for _ in 0..1000 {
        let directory = Path::new("/proc").join(&process);
        if let Ok(metadata) = fs::metadata(directory.join("ns/mnt")) {
            found = if metadata.ino() == own {
                PathBuf::from("/")
            } else {
                directory.join("root")
            };
        }
        match parent(&directory) {
            Some(0) | None => break,
            Some(pid) => process = pid.to_string(),
        }
    }
    found
}

/// `PPid` of a process.
fn parent(directory: &Path) -> Option<u32> {
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// Mounts bpffs in the mount namespace with this root.
fn mount_bpffs(root: &Path) -> Result<()> {
    let namespace = (root != Path::new("/"))
        .then(|| {
            let process = root.parent().context("no process")?;
            File::open(process.join("ns/mnt")).context("its mount namespace")
        })
        .transpose()?;
    let work = move || -> nix::Result<()> {
        if let Some(namespace) = namespace {
            unshare(CloneFlags::CLONE_FS)?;
            setns(namespace, CloneFlags::CLONE_NEWNS)?;
        }
        mount(
            Some("bpf"),
            MOUNT_POINT,
            Some("bpf"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("mode=0700"),
        )
    };
    // A thread of its own, as entering a mount namespace is for good.
    thread::spawn(work)
        .join()
        .map_err(|_| anyhow!("the mounting thread failed"))?
        .map_err(|error| io::Error::from(error).into())
}
