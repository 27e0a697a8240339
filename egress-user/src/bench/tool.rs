//! Other programs: where they are, and how they are run.

use std::{
    env,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

/// Where programs of the system are that PATH of a plain user lacks.
const SYSTEM: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The file of a program.
///
/// # Errors
///
/// Where it is not installed.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not installed"))
}

/// Runs a program to its end, with `input` on its standard input, and returns what it prints.
///
/// Ctrl-C on the terminal does not reach it: what is half done would be harder to undo.
///
/// # Errors
///
/// Where it cannot be run or fails; then with the first line of what it says.
pub fn run(program: &Path, args: &[&str], input: &str) -> Result<String> {
    let name = program.file_name().unwrap_or(program.as_os_str()).display();
    let mut child = Command::new(program)
        .args(args)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {}", program.display()))?;
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A program that fails before it has read all has a better message than ours.
            let _ = stdin.map(|mut stdin| stdin.write_all(input.as_bytes()));
        });
        child.wait_with_output()
    })
    .with_context(|| format!("waiting for {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| !line.trim().is_empty());
        let said = line.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned());
        bail!("{name} {}: {said}", args.join(" "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
