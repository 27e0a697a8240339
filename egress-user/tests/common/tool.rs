//! Programs that tests run: ip, tc, nft and their like.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
};

/// Finds a program: in a virtual machine PATH may lead to an applet of the same name or to nothing.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fixed = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    fixed
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// The path of a program, or its bare name to fail with.
pub fn path(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| name.into())
}

/// The command under test.
pub fn egress() -> PathBuf {
    match std::env::var_os("EGRESS_BIN") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_egress").into(),
    }
}

/// A file of this repository's `rulesets` directory.
pub fn ruleset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../rulesets")
        .join(name)
}

/// What a program said in the end.
#[derive(Debug, Clone)]
pub struct Said {
    pub what: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn of(what: String, output: Output) -> Self {
        Self {
            what,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// Its standard output, if it succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.is_success(), "{self}");
        self.stdout
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = match self.code {
            Some(code) => code.to_string(),
            None => "a signal".into(),
        };
        write!(
            f,
            "{}: ended with {code}\n--- stdout\n{}--- stderr\n{}---",
            self.what, self.stdout, self.stderr
        )
    }
}

/// Runs a command to its end, with this text on its standard input.
pub fn run(command: &mut Command, stdin: &[u8]) -> Said {
    let what = format!("{command:?}");
    let mut child = spawn(command, true);
    let mut input = child.stdin.take().unwrap();
    // Beside reading what it says, as both pipes are of bounded size. It need not read all.
    let stdin = stdin.to_vec();
    let writer = thread::spawn(move || drop(input.write_all(&stdin)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Said::of(what, output)
}

/// Starts a command with pipes to all its ends.
pub fn spawn(command: &mut Command, stdin: bool) -> Child {
    command
        .stdin(if stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
