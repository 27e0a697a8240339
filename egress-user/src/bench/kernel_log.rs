//! The kernel's log while we measure: pktgen reports each packet that a hook drops.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

/// What lines of pktgen have in them, also that which says how many others were left out.
const OURS: [&str; 2] = ["pktgen", "net_ratelimit"];

/// Longest record (`CONSOLE_EXT_LOG_MAX` of the kernel).
const RECORD: usize = 8192;

/// The log from a moment on.
#[derive(Debug)]
pub struct KernelLog(Option<File>);

/// What pktgen has written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Number of lines.
    pub lines: u64,
    /// The last of them.
    pub last: String,
}

impl KernelLog {
    /// From now on.
    pub fn begin() -> Self {
        let open = || -> std::io::Result<File> {
            let mut file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/kmsg")?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        // It takes CAP_SYSLOG where the kernel is set so; measuring does not.
        Self(open().ok())
    }

    /// What pktgen has written since; nothing where the log cannot be read.
    pub fn end(self) -> Option<Written> {
        let mut file = self.0?;
        let mut written = Written::default();
        let mut record = vec![0; RECORD];
        loop {
            match file.read(&mut record) {
                // A record at a time: `6,1234,5678,-;text`.
                Ok(length) if length > 0 => {
                    let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                    written.take(&text);
                }
                // Some were overwritten before we read them.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // No more.
                _ => return Some(written),
            }
        }
    }
}

impl Written {
    fn take(&mut self, record: &str) {
        let text = record.split_once(';').map_or(record, |(_, text)| text);
        let line = text.lines().next().unwrap_or_default();
        if OURS.iter().any(|word| line.contains(word)) {
            self.lines += 1;
            line.clone_into(&mut self.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let mut written = Written::default();
        written.take("6,1,2,-;pktgen: foo xmit error: 1\n SUBSYSTEM=x\n");
        written.take("4,2,3,-;net_ratelimit: 9 callbacks suppressed\n");
        written.take("6,1,2,-;something else\n");
        assert_eq!(written.lines, 2);
        assert_eq!(written.last, "net_ratelimit: 9 callbacks suppressed");
    }
}
