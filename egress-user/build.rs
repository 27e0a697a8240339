//! Builds the eBPF programs (the crate egress-ebpf) and leaves the objects at `$OUT_DIR/egress` and
//! `$OUT_DIR/guard`, from where the command embeds them.
//!
//! The toolchain is the one that `cargo xtask setup` wrote down in `.cache/ebpf-toolchain`; else a
//! rustup nightly that has rust-src, with a bpf-linker on PATH. Where there is neither, the object
//! is an empty file and a warning says so: the command then builds and tests in user space, and
//! refuses to attach.
//!
//! This calls cargo itself and not through `aya_build::build_ebpf`: that one overwrites the compiler
//! flags, and the programs are compiled for version 3 of the instruction set (`-C target-cpu=v3`:
//! 32-bit arithmetic and jumps, Linux >= 5.1), because every instruction is paid for each packet.

use std::{
    env, fs, io,
    io::BufRead as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// What the inner build runs.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    bpf_linker: PathBuf,
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()?;
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let objects = ["egress", "guard"].map(|name| (name, out_dir.join(name)));

    let written = root.join(".cache/ebpf-toolchain");
    for path in ["egress-ebpf", "egress-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", written.display());

    let found = match fs::read_to_string(&written) {
        Ok(text) => Some(parse(&text).with_context(|| format!("in {}", written.display()))?),
        Err(_) => nightly(),
    };
    let Some(toolchain) = found.filter(Toolchain::exists) else {
        println!(
            "cargo:warning=no toolchain for eBPF: this command is built without its programs and \
             cannot attach; `cargo xtask build` sets one up"
        );
        for (_, object) in &objects {
            fs::write(object, []).context("writing the empty object")?;
        }
        return Ok(());
    };
    let built = build(&toolchain, &root, &out_dir)?;
    for (name, object) in &objects {
        let built = built.join(name);
        fs::copy(&built, object).with_context(|| format!("copying {}", built.display()))?;
    }
    Ok(())
}

impl Toolchain {
    fn exists(&self) -> bool {
        [&self.cargo, &self.rustc, &self.bpf_linker]
            .into_iter()
            .all(|path| path.exists())
    }
}

/// Reads lines `cargo = PATH`, `rustc = PATH`, `bpf-linker = PATH`.
fn parse(text: &str) -> Result<Toolchain> {
    let get = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| name.trim() == key)
            .map(|(_, path)| PathBuf::from(path.trim()))
            .with_context(|| format!("no line `{key} = PATH`"))
    };
    Ok(Toolchain {
        cargo: get("cargo")?,
        rustc: get("rustc")?,
        bpf_linker: get("bpf-linker")?,
    })
}

/// The rustup nightly, if it has the sources of `core`, with the bpf-linker on PATH.
fn nightly() -> Option<Toolchain> {
    let which = |program: &str| {
        let output = Command::new("rustup")
            .args(["which", "--toolchain", "nightly", program])
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        output.status.success().then_some(path)
    };
    let rustc = which("rustc")?;
    let sources = rustc
        .parent()?
        .parent()?
        .join("lib/rustlib/src/rust/library/core");
    let bpf_linker = env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join("bpf-linker"))
        .find(|path| path.exists())?;
    sources.exists().then_some(Toolchain {
        cargo: which("cargo")?,
        rustc,
        bpf_linker,
    })
}

/// Compiles the programs and returns the directory with the objects.
fn build(toolchain: &Toolchain, root: &Path, out_dir: &Path) -> Result<PathBuf> {
    let target = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    // OUT_DIR is target/PROFILE/build/NAME/out: `core` is compiled once for all profiles, not for each.
    let target_dir = out_dir.ancestors().nth(4).unwrap_or(out_dir).join("ebpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").context("CARGO_CFG_TARGET_ARCH")?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Ctarget-cpu=v3".into(),
        "-Cpanic=abort".into(),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // aya's macros make public functions without documentation.
        "-Amissing-docs".into(),
        format!("-Clinker={}", toolchain.bpf_linker.display()),
    ];

    let mut cargo = Command::new(&toolchain.cargo);
    cargo
        .args([
            "build",
            "--package",
            "egress-ebpf",
            "--bins",
            "--release",
            "--locked",
        ])
        .args(["--target", target, "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(&target_dir)
        .current_dir(root)
        .env("RUSTC", &toolchain.rustc)
        // The sources of `core` need unstable features, which Debian's compiler otherwise refuses.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // What the outer cargo and rustup say to their own children is wrong for this other toolchain,
    // and a wrapper (clippy's, a cache's) does not know its target.
    for key in [
        "CARGO",
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
    ] {
        cargo.env_remove(key);
    }
    let mut child = cargo
        .spawn()
        .with_context(|| format!("running {cargo:?}"))?;
    // Passed on as warnings: those of a build script are all that cargo shows while it succeeds.
    if let Some(stderr) = child.stderr.take() {
        for line in io::BufReader::new(stderr).lines() {
            let line = line.context("reading cargo's output")?;
            if !is_progress(&line) {
                println!("cargo:warning={line}");
            }
        }
    }
    let status = child.wait().context("waiting for cargo")?;
    ensure!(
        status.success(),
        "the eBPF programs did not build ({status})"
    );
    Ok(target_dir.join(target).join("release"))
}

/// Cargo's right-aligned status lines, such as `   Compiling core v0.0.0`.
fn is_progress(line: &str) -> bool {
    [
        "Compiling",
        "Finished",
        "Fresh",
        "Blocking",
        "Downloading",
        "Downloaded",
        "Updating",
        "Locking",
    ]
    .iter()
    .any(|word| line.trim_start().starts_with(word))
}
