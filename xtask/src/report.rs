//! What tests said: reads libtest's output (as printed with `--show-output`) and adds it up.

use std::{collections::BTreeSet, time::Duration};

/// The line that a test prints when it cannot run here, with the reason after it.
const SKIPPED: &str = "SKIPPED:";

/// The outcome of any number of test programs.
#[derive(Default)]
pub struct Report {
    passed: usize,
    failures: Vec<Failure>,
    skips: Vec<Skip>,
    times: Vec<(String, Duration)>,
}

/// How many of the programs that took longest are named.
const SLOWEST: usize = 12;

struct Failure {
    test: String,
    output: String,
}

struct Skip {
    test: String,
    reason: String,
}

impl Report {
    /// Notes that something which is not a test of libtest's passed.
    pub fn pass(&mut self) {
        self.passed += 1;
    }

    /// Notes that `what`, which is not a test of libtest's, failed.
    pub fn fail(&mut self, what: impl Into<String>, output: impl Into<String>) {
        self.failures.push(Failure {
            test: what.into(),
            output: output.into(),
        });
    }

    /// Notes how long the test program `program` took.
    pub fn took(&mut self, program: impl Into<String>, time: Duration) {
        self.times.push((program.into(), time));
    }

    /// Takes in another report.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
        self.times.extend(other.times);
    }

    /// Takes in the output of one test program that ended as `ended` says. `place` is where it ran,
    /// such as "Linux 6.1".
    pub fn read(&mut self, place: &str, program: &str, output: &str, ended: Ended) {
        let mut reader = Reader::default();
        output.lines().for_each(|line| reader.line(line));
        let full = |test: &str| format!("{place}: {program}: {test}");

        for (test, output) in &reader.failures {
            self.fail(full(test), output.join("\n"));
        }
        let crashed = match ended {
            Ended::Exit(0) => reader.results == 0,
            Ended::Exit(_) => reader.results == 0 || reader.failures.is_empty(),
            Ended::Timeout => true,
        };
        if crashed {
            let how = match ended {
                Ended::Exit(status) => format!("ended with status {status}, without a result"),
                Ended::Timeout => "ran for too long".into(),
            };
            let log = crate::step::tail(output.as_bytes());
            self.fail(full(&how), log);
        }
        // A test that skips itself has passed for libtest.
        let skipped_itself: BTreeSet<_> = reader.skips.iter().map(|(test, _)| test).collect();
        self.passed += reader.passed.saturating_sub(skipped_itself.len());
        for (test, reason) in reader.skips.iter().chain(&reader.ignored) {
            self.skips.push(Skip {
                test: full(test),
                reason: reason.clone(),
            });
        }
    }

    /// Whether nothing failed.
    pub fn is_success(&self) -> bool {
        self.failures.is_empty()
    }

    /// `N passed, N failed, N skipped`.
    pub fn summary(&self) -> String {
        let (failed, skipped) = (self.failures.len(), self.skips.len());
        format!("{} passed, {failed} failed, {skipped} skipped", self.passed)
    }

    /// What took longest, failures with their output, then what was skipped and why.
    pub fn details(&self) -> String {
        let mut text = String::new();
        let mut times: Vec<_> = self.times.iter().collect();
        times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        for (program, time) in times.iter().take(SLOWEST) {
            text += &format!("{:>7.1} s  {program}\n", time.as_secs_f32());
        }
        for Failure { test, output } in &self.failures {
            text += &format!("\n---- FAILED {test}\n{output}\n");
        }
        if !self.skips.is_empty() {
            text += "\nSKIPPED, so not tested here:\n";
            for Skip { test, reason } in &self.skips {
                text += &format!("  {test}: {reason}\n");
            }
        }
        text
    }
}

/// How a test program ended.
#[derive(Clone, Copy)]
pub enum Ended {
    /// With this exit status (that of a signal as shells tell it).
    Exit(i32),
    /// It was stopped.
    Timeout,
}

/// libtest's output, line by line.
#[derive(Default)]
struct Reader {
    passed: usize,
    /// How many "test result:" lines there were; doc tests have several.
    results: usize,
    failures: Vec<(String, Vec<String>)>,
    skips: Vec<(String, String)>,
    ignored: Vec<(String, String)>,
    /// The test whose output the lines are, and whether it is one that failed.
    section: Option<String>,
    in_failures: bool,
}

impl Reader {
    fn line(&mut self, line: &str) {
        if let Some(reason) = line.split_once(SKIPPED).and_then(|(before, reason)| {
            // At the start of a line, or after `test NAME ... ` where a child process printed it.
            (before.trim().is_empty() || before.trim_end().ends_with("...")).then_some(reason)
        }) {
            let test = self
                .section
                .clone()
                .or_else(|| running_test(line))
                .unwrap_or_default();
            if !self
                .skips
                .iter()
                .any(|(known, _)| *known == test && !test.is_empty())
            {
                self.skips.push((test, reason.trim().to_owned()));
            }
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.results += 1;
            self.passed += count(result, "passed");
            self.section = None;
        } else if line == "failures:" || line == "successes:" {
            self.in_failures = line == "failures:";
            self.section = None;
        } else if let Some(test) = line
            .strip_prefix("---- ")
            .and_then(|line| line.strip_suffix(" stdout ----"))
        {
            self.section = Some(test.to_owned());
            if self.in_failures {
                self.failures.push((test.to_owned(), Vec::new()));
            }
        } else if self.section.is_some() {
            if self.in_failures
                && let Some((_, output)) = self.failures.last_mut()
            {
                output.push(line.to_owned());
            }
        } else if let Some((test, how)) = running_test(line).zip(line.split_once(" ... ignored")) {
            let reason = how.1.trim_start_matches(", ");
            let reason = if reason.is_empty() {
                "marked #[ignore]"
            } else {
                reason
            };
            self.ignored.push((test, reason.to_owned()));
        } else if self.in_failures
            && let Some(test) = line.strip_prefix("    ")
            && !self.failures.iter().any(|(known, _)| known == test)
        {
            // Listed as failed without output of its own.
            self.failures
                .push((test.to_owned(), vec!["(no output)".into()]));
        }
    }
}

/// The test of a line `test NAME ... `.
fn running_test(line: &str) -> Option<String> {
    let (test, _) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some(test.to_owned())
}

/// The number before ` WORD` in `ok. 3 passed; 0 failed; ...`.
fn count(result: &str, word: &str) -> usize {
    result
        .split([';', '.'])
        .filter_map(|part| part.trim().split_once(' '))
        .find(|(_, what)| *what == word)
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 5 tests\ntest a ... ok\ntest b ... FAILED\n\
        test c ... ignored, needs a printer\ntest d ... ok\ntest e ... FAILED\n\nsuccesses:\n\n\
        ---- d stdout ----\nSKIPPED: no TCX before Linux 6.6\n\n\nsuccesses:\n    a\n    d\n\n\
        failures:\n\n---- b stdout ----\nthread 'b' panicked\n\n\nfailures:\n    b\n    e\n\n\
        test result: FAILED. 2 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out\n";

    #[test]
    fn adds_up_what_libtest_printed() {
        let mut report = Report::default();
        report.read("here", "net_attach", OUTPUT, Ended::Exit(101));
        assert_eq!(report.summary(), "1 passed, 2 failed, 2 skipped");
        let details = report.details();
        assert!(
            details.contains("FAILED here: net_attach: b\nthread 'b' panicked"),
            "{details}"
        );
        assert!(
            details.contains("FAILED here: net_attach: e\n(no output)"),
            "{details}"
        );
        assert!(
            details.contains("net_attach: c: needs a printer"),
            "{details}"
        );
        assert!(
            details.contains("net_attach: d: no TCX before Linux 6.6"),
            "{details}"
        );
    }

    #[test]
    fn a_program_without_a_result_failed() {
        for (output, ended) in [
            ("running 1 test\ntest a ... ", Ended::Exit(134)),
            ("", Ended::Exit(0)),
            ("running 1 test\ntest a ... ", Ended::Timeout),
        ] {
            let mut report = Report::default();
            report.read("here", "unit", output, ended);
            assert_eq!(report.summary(), "0 passed, 1 failed, 0 skipped");
        }
    }

    #[test]
    fn finds_a_skip_that_a_child_process_printed() {
        let mut report = Report::default();
        let output = "running 1 test\ntest a ... SKIPPED: no pktgen\nok\n\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n";
        report.read("here", "vm_bench", output, Ended::Exit(0));
        assert_eq!(report.summary(), "0 passed, 0 failed, 1 skipped");
    }
}
