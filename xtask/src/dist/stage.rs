//! What goes into the package and the tarball, laid out in a directory.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{place, step};

/// Shells, and where Debian has completions for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/egress"),
    ("zsh", "usr/share/zsh/vendor-completions/_egress"),
    ("fish", "usr/share/fish/vendor_completions.d/egress.fish"),
];

/// Lays out what the package installs.
pub fn package(command: &Path, root: &Path) -> Result<()> {
    let source = place::root()?;
    copy(command, &root.join("usr/bin/egress"), 0o755)?;
    for unit in ["egress-restore.service", "egress-watch.service"] {
        let from = source.join("packaging/systemd").join(unit);
        copy(&from, &root.join("lib/systemd/system").join(unit), 0o644)?;
    }
    let readme = source.join("packaging/rules.d/README");
    copy(&readme, &root.join("etc/egress/rules.d/README"), 0o644)?;
    man(command, &root.join("usr/share/man/man1"))?;
    for (shell, path) in COMPLETIONS {
        completion(command, shell, &root.join(path))?;
    }
    documents(&root.join("usr/share/doc/egress"))
}

/// Adds what dpkg reads.
pub fn control(root: &Path, version: &str, architecture: &str) -> Result<()> {
    let source = place::root()?.join("packaging/debian");
    let directory = root.join("DEBIAN");
    for (name, mode) in [
        ("conffiles", 0o644),
        ("postinst", 0o755),
        ("prerm", 0o755),
        ("postrm", 0o755),
    ] {
        copy(&source.join(name), &directory.join(name), mode)?;
    }
    let kilobytes = step::read(
        Command::new("du")
            .args(["-sk", "--apparent-size"])
            .arg(root),
    )?;
    let kilobytes = kilobytes.split_whitespace().next().unwrap_or("0");
    let control = fs::read_to_string(source.join("control"))?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@SIZE@", kilobytes);
    write(&directory.join("control"), control.as_bytes(), 0o644)
}

/// Lays out the tarball: what the package has, without its places.
pub fn tarball(command: &Path, root: &Path) -> Result<()> {
    let source = place::root()?;
    copy(command, &root.join("egress"), 0o755)?;
    for unit in ["egress-restore.service", "egress-watch.service"] {
        let from = source.join("packaging/systemd").join(unit);
        copy(&from, &root.join("systemd").join(unit), 0o644)?;
    }
    man(command, &root.join("man"))?;
    for (shell, _) in COMPLETIONS {
        let path = root.join("completions").join(format!("egress.{shell}"));
        completion(command, shell, &path)?;
    }
    documents(root)
}

/// Documents, licences and examples.
fn documents(to: &Path) -> Result<()> {
    let source = place::root()?;
    for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&source.join(name), &to.join(name), 0o644)?;
    }
    let guides = [
        "operations",
        "containers",
        "SECURITY",
        "language",
        "use-cases",
    ];
    for name in guides.map(|name| format!("{name}.md")) {
        copy(&source.join("docs").join(&name), &to.join(&name), 0o644)?;
    }
    let dashboard = "grafana-dashboard.json";
    copy(
        &source.join("docs").join(dashboard),
        &to.join(dashboard),
        0o644,
    )?;
    for entry in fs::read_dir(source.join("rulesets"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "nft")
            && let Some(name) = path.file_name()
        {
            copy(&path, &to.join("examples").join(name), 0o644)?;
        }
    }
    Ok(())
}

fn man(command: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    step::read(Command::new(command).arg("man").arg(to))?;
    for entry in fs::read_dir(to)? {
        let path = entry?.path();
        step::read(Command::new("gzip").args(["-9n"]).arg(&path))?;
    }
    Ok(())
}

fn completion(command: &Path, shell: &str, to: &Path) -> Result<()> {
    let script = step::read(Command::new(command).args(["completions", shell]))?;
    ensure!(!script.is_empty(), "no completions for {shell}");
    write(to, script.as_bytes(), 0o644)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    write(to, &content, mode)
}

fn write(to: &Path, content: &[u8], mode: u32) -> Result<()> {
    let directory = to.parent().context("a path without a directory")?;
    fs::create_dir_all(directory)?;
    fs::write(to, content).with_context(|| format!("writing {}", to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Runs a script of the shell in a root directory.
pub fn shell_in(root: &Path, script: &str) -> Result<String> {
    // A mount namespace for bpffs and /proc, a network namespace for interfaces, a process namespace so
    // that both are those of the oldest process.
    let mut child = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
        .args(["/bin/sh", "-c"])
        .arg(
            "mount --make-rprivate / && mount -t proc proc \"$0/proc\" && \
             mount -t sysfs sysfs \"$0/sys\" && mount -t bpf bpf \"$0/sys/fs/bpf\" && \
             exec chroot \"$0\" /bin/sh -eux",
        )
        .arg(root)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("running unshare")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}\n{said}", output.status);
    Ok(said)
}
