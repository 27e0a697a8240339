//! The lines of the table: what was counted between two looks.

use std::{collections::HashMap, time::Instant};

use clap::ValueEnum;

use crate::{commands::output::columns, generation::state::Count, observe::Sample};

/// What stands first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The most packets a second
    Packets,
    /// The most bytes a second
    Bytes,
    /// The most packets in all
    Total,
    /// The order of the ruleset
    Ruleset,
}

impl Order {
    /// The next one, in a circle.
    pub fn next(self) -> Self {
        match self {
            Self::Packets => Self::Bytes,
            Self::Bytes => Self::Total,
            Self::Total => Self::Ruleset,
            Self::Ruleset => Self::Packets,
        }
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Total => "total",
            Self::Ruleset => "ruleset",
        }
    }
}

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it counts: table and chain, or the interface.
    pub at: String,
    /// What counts: the rule, the counter's name, or the hook and verdict.
    pub what: String,
    /// Packets a second.
    pub packets_rate: f64,
    /// Bytes a second; none where bytes are not counted.
    pub bytes_rate: Option<f64>,
    /// In all.
    pub total: Count,
}

/// The lines, in order.
#[derive(Debug, Clone, Default)]
pub struct Rows(pub Vec<Row>);

/// What tells lines apart: place and kind, handle or name.
type Key = (String, String);

impl Rows {
    /// What was counted between two looks.
    pub fn between(before: &(Instant, Sample), now: &(Instant, Sample)) -> Self {
        let seconds = now.0.duration_since(before.0).as_secs_f64().max(1e-3);
        let old: HashMap<Key, Count> = lines(&before.1)
            .map(|line| (line.key, line.count))
            .collect();
        let rows = lines(&now.1).map(|line| {
            // What is new began at 0; what was set back is so, too.
            let old = old.get(&line.key).copied().unwrap_or_default();
            let rate = |now: u64, old: u64| now.checked_sub(old).unwrap_or(now) as f64 / seconds;
            Row {
                at: line.key.0,
                what: line.what,
                packets_rate: rate(line.count.packets, old.packets),
                bytes_rate: line.bytes.then(|| rate(line.count.bytes, old.bytes)),
                total: line.count,
            }
        });
        Self(rows.collect())
    }

    /// Leaves only lines with a text in them, whatever its case.
    pub fn filter(&mut self, text: &str) {
        let text = text.to_lowercase();
        let has = |field: &str| field.to_lowercase().contains(&text);
        self.0.retain(|row| has(&row.at) || has(&row.what));
    }

    /// Sorts them; equal ones stay in the order of the ruleset.
    pub fn sort(&mut self, order: Order) {
        let largest_first = |a: f64, b: f64| b.total_cmp(&a);
        let bytes = |row: &Row| row.bytes_rate.unwrap_or(-1.0);
        match order {
            Order::Packets => {
                (self.0).sort_by(|a, b| largest_first(a.packets_rate, b.packets_rate));
            }
            Order::Bytes => self.0.sort_by(|a, b| largest_first(bytes(a), bytes(b))),
            Order::Total => self
                .0
                .sort_by_key(|row| std::cmp::Reverse(row.total.packets)),
            Order::Ruleset => {}
        }
    }

    /// The heading of the table.
    pub const HEADING: [&str; 5] = ["PACKETS/S", "BYTES/S", "PACKETS", "WHERE", "WHAT"];

    /// The table as text.
    pub fn text(&self) -> String {
        let rows: Vec<_> = self.0.iter().map(|row| row.cells().to_vec()).collect();
        columns(&Self::HEADING, &rows)
    }
}

impl Row {
    /// What stands in the columns.
    pub fn cells(&self) -> [String; 5] {
        [
            rate(self.packets_rate),
            self.bytes_rate.map_or("-".into(), rate),
            self.total.packets.to_string(),
            self.at.clone(),
            self.what.clone(),
        ]
    }
}

/// A rate in five digits or so.
fn rate(rate: f64) -> String {
    match rate {
        rate if rate >= 1e10 => format!("{:.1}G", rate / 1e9),
        rate if rate >= 1e7 => format!("{:.1}M", rate / 1e6),
        rate if rate >= 1e5 => format!("{:.1}k", rate / 1e3),
        rate if rate >= 100.0 || rate == 0.0 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    }
}

/// Something that counts.
struct Line {
    key: Key,
    what: String,
    count: Count,
    /// Whether it counts bytes, too.
    bytes: bool,
}

fn lines(sample: &Sample) -> impl Iterator<Item = Line> {
    let mut all = Vec::new();
    let prefix = |netns: &str| match netns {
        "" => String::new(),
        netns => format!("{netns}: "),
    };
    for of in &sample.attached.interfaces {
        let at = format!("{}{}", prefix(&of.netns), of.interface);
        for (verdict, packets) in [("seen", of.packets_seen), ("dropped", of.packets_dropped)] {
            let what = format!("{} {verdict}", of.hook);
            all.push(Line {
                key: (at.clone(), what.clone()),
                what,
                count: Count { packets, bytes: 0 },
                bytes: false,
            });
        }
    }
    for namespace in &sample.namespaces {
        let at = |scope: &str, table: &str| {
            let scope = match scope {
                "" => String::new(),
                scope => format!("[{scope}] "),
            };
            format!("{}{scope}{table}", prefix(&namespace.netns))
        };
        for rule in &namespace.rules {
            let place = format!(
                "{} {}",
                at(&rule.place.scope, &rule.place.table),
                rule.chain
            );
            all.push(Line {
                key: (place, rule.handle.to_string()),
                what: rule.text.clone(),
                count: rule.count,
                bytes: true,
            });
        }
        for counter in &namespace.counters {
            let what = format!("counter {}", counter.name);
            all.push(Line {
                key: (at(&counter.place.scope, &counter.place.table), what.clone()),
                what,
                count: counter.value,
                bytes: true,
            });
        }
    }
    all.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: &str, packets_rate: f64, bytes_rate: f64) -> Row {
        Row {
            at: at.into(),
            what: "x".into(),
            packets_rate,
            bytes_rate: Some(bytes_rate),
            total: Count::default(),
        }
    }

    #[test]
    fn sorts_and_filters() {
        let mut rows = Rows(vec![
            row("a", 1.0, 5.0),
            row("B", 2.0, 4.0),
            row("c", 0.0, 9.0),
        ]);
        let order = |rows: &Rows| rows.0.iter().map(|row| row.at.clone()).collect::<String>();
        rows.sort(Order::Packets);
        assert_eq!(order(&rows), "Bac");
        rows.sort(Order::Bytes);
        assert_eq!(order(&rows), "caB");
        rows.filter("b");
        assert_eq!(order(&rows), "B");
        assert!(rows.text().contains("PACKETS/S"));
    }

    #[test]
    fn rates() {
        let all = [0.0, 1.25, 123.4, 123_456.0, 12_345_678.0, 12_345_678_901.0].map(rate);
        assert_eq!(all, ["0", "1.2", "123", "123.5k", "12.3M", "12.3G"]);
    }
}
