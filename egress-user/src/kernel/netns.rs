//! Network namespaces: how they are named, told apart, and entered.
//!
//! A namespace is told apart by its cookie (`SO_NETNS_COOKIE`, Linux 5.14), which the kernel never
//! gives to another one; inode numbers of `/proc/PID/ns/net` are used again.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
};
use serde::{Deserialize, Serialize};

use crate::kernel::capability::NeedsSysAdmin;

/// Where `ip netns` keeps names.
pub const NAMED: &str = "/run/netns";

/// What a namespace is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Never used again while the machine is up.
    pub cookie: u64,
    /// Of its file in nsfs.
    pub inode: u64,
    /// How it was named on the command line, or a name it has; `None` for a nameless own one.
    pub path: Option<PathBuf>,
}

/// An open network namespace.
#[derive(Debug)]
pub struct Netns {
    /// `None`: the one that this process is in.
    file: Option<File>,
    /// What it is known by.
    pub identity: Identity,
}

impl Netns {
    /// The namespace that was asked for, or that of this process.
    ///
    /// # Errors
    ///
    /// Where there is none of that name.
    pub fn open(name: Option<&OsStr>) -> Result<Self> {
        match name {
            None => Self::own(),
            Some(name) => Self::at(&path_of(name)?),
        }
    }

    /// The namespace of this process.
    ///
    /// # Errors
    ///
    /// Where /proc is not mounted.
    pub fn own() -> Result<Self> {
        let own = inode(Path::new("/proc/self/ns/net")).context("/proc/self/ns/net")?;
        let cookie = cookie().context("reading the cookie of the network namespace")?;
        Ok(Self {
            file: None,
            identity: Identity {
                cookie,
                inode: own,
                path: named().find(|path| inode(path).is_ok_and(|inode| inode == own)),
            },
        })
    }

    /// The namespace behind a path.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened or is no network namespace.
    pub fn at(path: &Path) -> Result<Self> {
        let file =
            File::open(path).with_context(|| format!("network namespace {}", path.display()))?;
        let inode = file.metadata()?.ino();
        let name = named().find(|path| self::inode(path).is_ok_and(|other| other == inode));
        let mut netns = Self {
            file: Some(file),
            identity: Identity {
                cookie: 0,
                inode,
                path: Some(name.unwrap_or_else(|| path.to_owned())),
            },
        };
        netns.identity.cookie = netns
            .run(|| cookie().context("reading the cookie"))
            .with_context(|| format!("network namespace {}", path.display()))?;
        Ok(netns)
    }

    /// Finds the namespace again that is known by `identity`; `None` where it is not to be found.
    pub fn find(identity: &Identity) -> Option<Self> {
        let same = |netns: &Self| netns.identity.cookie == identity.cookie;
        if let Some(own) = Self::own().ok().filter(same) {
            return Some(own);
        }
        identity
            .path
            .clone()
            .into_iter()
            .chain(named())
            .chain(of_processes())
            .filter(|path| inode(path).is_ok_and(|inode| inode == identity.inode))
            .filter_map(|path| Self::at(&path).ok())
            .find(same)
    }

    /// Whether a namespace with this cookie is to be found: that of a process, or one with a name.
    pub fn is_there(cookie: u64) -> bool {
        named()
            .chain(of_processes())
            .filter_map(|path| Self::at(&path).ok())
            .any(|netns| netns.identity.cookie == cookie)
    }

    /// Runs `work` in this namespace, on a thread of its own.
    ///
    /// # Errors
    ///
    /// Those of `work`, or where the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                if let Some(file) = &self.file {
                    setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| match error {
                        Errno::EINVAL => anyhow!("this is no network namespace"),
                        _ => anyhow!(io::Error::from(error))
                            .context(NeedsSysAdmin("entering the network namespace")),
                    })?;
                }
                work()
            });
            match entered.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// How people know it: the name of `ip netns`, or the path, or nothing for the own one.
    pub fn label(identity: &Identity) -> String {
        let Some(path) = &identity.path else {
            return String::new();
        };
        match path.strip_prefix(NAMED) {
            Ok(name) => name.display().to_string(),
            Err(_) => path.display().to_string(),
        }
    }
}

/// `NAME|PID|PATH` as a path.
///
/// # Errors
///
/// Where it is empty.
pub fn path_of(name: &OsStr) -> Result<PathBuf> {
    let path = Path::new(name);
    if name.is_empty() {
        bail!("network namespace: the name is empty");
    }
    if name.as_encoded_bytes().contains(&b'/') {
        return Ok(path.to_owned());
    }
    let named = Path::new(NAMED).join(path);
    if is_number(name) && !named.exists() {
        return Ok(Path::new("/proc").join(path).join("ns/net"));
    }
    Ok(named)
}

/// The files that `ip netns` gave names to.
fn named() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(NAMED).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

/// The files of the processes' namespaces.
fn of_processes() -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(is_number))
        .map(|path| path.join("ns/net"))
}

fn is_number(name: &OsStr) -> bool {
    !name.is_empty() && name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.ino())
}

/// The cookie of the namespace that this thread is in.
///
/// # Errors
///
/// Where the kernel gives none.
pub fn cookie() -> io::Result<u64> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: both pointers are to values of the sizes that the kernel expects.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

/// include/uapi/asm-generic/socket.h.
const SO_NETNS_COOKIE: libc::c_int = 71;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(
            path_of(OsStr::new("eu-none")).unwrap(),
            Path::new("/run/netns/eu-none")
        );
        assert_eq!(
            path_of(OsStr::new("4194305")).unwrap(),
            Path::new("/proc/4194305/ns/net")
        );
        assert_eq!(path_of(OsStr::new("./x")).unwrap(), Path::new("./x"));
        assert!(path_of(OsStr::new("")).is_err());
    }

    #[test]
    fn own_namespace_is_found_again() {
        let own = Netns::own().unwrap();
        let found = Netns::find(&own.identity).unwrap();
        assert_eq!(found.identity.cookie, own.identity.cookie);
    }
}
