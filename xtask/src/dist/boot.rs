//! A Debian root boots with systemd as its first process, in namespaces of its own: no virtual machine,
//! and the units run with the rights that they ask for.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

/// Where cgroups of the second version may be mounted.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Makes the mounts of the new machine, and its units in /run; `$1` is its root.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
for directory in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs $directory; done
for device in kmsg null zero full random urandom tty; do
        touch dev/$device
        mount --bind /dev/$device dev/$device
done
ln -s /proc/self/fd dev/fd
units=run/systemd/system
mkdir -p $units/sysinit.target.wants $units/multi-user.target.wants
for unit in restore watch; do
        mkdir $units/egress-$unit.service.d
        # /dev is made of bind mounts here, which systemd cannot make again.
        printf '[Service]\nPrivateDevices=no\n' >$units/egress-$unit.service.d/dev.conf
done
cat >$units/veth.service <<end
[Unit]
DefaultDependencies=no
Before=egress-restore.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'ip link add veth0 type veth peer name veth1'
end
ln -s ../veth.service $units/sysinit.target.wants
ln -s /lib/systemd/system/egress-watch.service $units/multi-user.target.wants
cat >$units/check.service <<end
[Unit]
After=egress-watch.service
[Service]
Type=oneshot
ExecStart=/bin/sh -ex /check.sh
ExecStopPost=/bin/systemctl poweroff --force --force
StandardOutput=file:/result
StandardError=file:/result
end
ln -s ../check.service $units/multi-user.target.wants
pivot_root . mnt
cd /
umount -l /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
        --system --log-target=null --show-status=no systemd.unit=multi-user.target
"#;

/// What must hold once it is up.
const CHECK: &str = r#"
systemctl is-active egress-restore egress-watch
egress status | grep '^veth0 .*0x10/0xf0'
pid=$(systemctl show -p MainPID --value egress-watch)
grep 'CapBnd:.000000c000001000' /proc/$pid/status
grep 'NoNewPrivs:.1' /proc/$pid/status
ip link add wat0 type veth peer name wat1
sleep 1
egress status | grep '^wat0 '
sed -i 's/54/55/' /etc/egress/rules.d/watched.nft
systemctl reload egress-watch
egress list ruleset | grep 'udp dport 55'
systemctl kill -s KILL egress-watch
sleep 3
systemctl is-active egress-watch
systemctl stop egress-watch
egress status | grep '^wat0 '
echo all of it holds
"#;

const WATCHED: &str = "table netdev watched {\n\tchain out {\n\t\ttype filter hook egress \
    devices = { \"wat*\" } priority 0; policy accept;\n\t\tudp dport 54 counter drop\n\t}\n}\n";

/// Boots `root`, which is not used again, in which the package is installed and something was saved for veth0.
pub fn run(root: &Path) -> Result<()> {
    let found = CGROUPS
        .into_iter()
        .find(|path| Path::new(path).join("cgroup.controllers").exists());
    let Some(cgroups) = found else {
        eprintln!("no cgroups of the second version are mounted: the units are not tried");
        return Ok(());
    };
    let cgroup = Path::new(cgroups).join("egress-xtask-boot");
    fs::create_dir_all(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
    fs::write(root.join("etc/egress/rules.d/watched.nft"), WATCHED)?;
    fs::write(root.join("check.sh"), CHECK)?;
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""])
        .arg(&cgroup)
        .args(["timeout", "120", "unshare", "--mount", "--pid", "--net"])
        .args(["--cgroup", "--uts", "--ipc", "--fork", "--kill-child"])
        .args(["bash", "-c", BOOT, "boot"])
        .arg(root);
    // Its end is a power-off, which no exit status tells from a failure.
    eprintln!("Booting the Debian root ...");
    command.output().context("running unshare")?;
    for _ in 0..50 {
        // The kernel takes a moment to empty it.
        if remove_cgroup(&cgroup).is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let said = fs::read_to_string(root.join("result")).unwrap_or_default();
    ensure!(
        said.trim_end().ends_with("all of it holds"),
        "the units do not do what they should:\n{said}"
    );
    println!("the root booted: the units restored and watched");
    Ok(())
}

/// Removes a cgroup, and what systemd made below it.
fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
