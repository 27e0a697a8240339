//! The package in a Debian root of its own: installed, used, restored as at boot, purged.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};

use super::{boot, stage};
use crate::{place, setup::debian, step};

/// The release that the package is made for.
const RELEASE: &str = "bookworm";

/// What happens in the root, as its first process in namespaces of its own.
const INSTALL_AND_USE: &str = r#"
dpkg --install /egress.deb
egress --version
egress completions bash >/dev/null
test -s /usr/share/man/man1/egress-watch.1.gz
test -s /usr/share/bash-completion/completions/egress
ip link add veth0 type veth peer name veth1
ip link set veth0 up
egress attach veth0 --skip-mark 0x10/0xf0 --rules /usr/share/doc/egress/examples/demo.nft
egress save
test -s /var/lib/egress/saved/saved.json
egress list ruleset | grep -v '^#' > /before
"#;

/// After a "boot": bpffs and interfaces are new, files are as they were.
const RESTORE: &str = r#"
ip link add veth0 type veth peer name veth1
test "$(egress status)" = 'nothing is attached'
# As the unit does, with the capabilities of the unit.
eval "$(sed -n 's/^ExecStart=/setpriv --bounding-set=-all,+bpf,+net_admin,+perfmon --no-new-privs /p' \
        /lib/systemd/system/egress-restore.service)"
egress list ruleset | grep -v '^#' > /after
sed -i 's/packets [0-9]* bytes [0-9]*/packets 0 bytes 0/' /before /after
diff /before /after
egress restore
egress status | grep -q '0x10/0xf0'
egress guard status
dpkg --purge egress
test ! -e /usr/bin/egress
test ! -e /var/lib/egress
test ! -e /etc/egress
test -z "$(ls /sys/fs/bpf | grep -v debug)"
test -z "$(tc filter show dev veth0 egress)"
"#;

/// Installs, uses and purges `package`.
pub fn run(package: &Path) -> Result<()> {
    let root = root()?;
    fs::copy(package, root.join("egress.deb"))?;
    let before = files(&root)?;
    stage::shell_in(&root, INSTALL_AND_USE)?;
    let booted = root.with_file_name("booted");
    copy(&root, &booted)?;
    boot::run(&booted)?;
    fs::remove_dir_all(&booted)?;
    stage::shell_in(&root, RESTORE)?;
    for name in ["before", "after"] {
        fs::remove_file(root.join(name))?;
    }
    let left: Vec<_> = files(&root)?
        .into_iter()
        .filter(|file| !before.contains(file))
        .collect();
    ensure!(left.is_empty(), "left after purging: {}", left.join(" "));
    println!("the package was installed, used, restored and purged; nothing is left of it");
    Ok(())
}

/// A clean root, from the one that debootstrap makes once.
fn root() -> Result<std::path::PathBuf> {
    debian::ensure(&["debootstrap"])?;
    let clean = place::target()?.join("dist-root/clean");
    let root = place::target()?.join("dist-root/used");
    if !clean.join("done").exists() {
        if clean.exists() {
            fs::remove_dir_all(&clean)?;
        }
        fs::create_dir_all(&clean)?;
        step::run(
            &format!("Making a Debian root ({RELEASE})"),
            Command::new("debootstrap")
                .args(["--variant=minbase", "--include=iproute2,systemd", RELEASE])
                .arg(&clean),
        )?;
        fs::write(clean.join("done"), "")?;
    }
    copy(&clean, &root)?;
    Ok(root)
}

/// Makes `to` be as `from` is.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    step::read(Command::new("cp").arg("-a").args([from, to])).map(drop)
}

/// All files but dpkg's own records and caches.
fn files(root: &Path) -> Result<Vec<String>> {
    let list = step::read(
        Command::new("find")
            .args([".", "-path", "./var/lib/dpkg", "-prune", "-o"])
            .args(["-path", "./var/cache", "-prune", "-o"])
            .args(["-path", "./var/log", "-prune", "-o", "-print"])
            .current_dir(root),
    )?;
    Ok(list.lines().map(str::to_owned).collect())
}
