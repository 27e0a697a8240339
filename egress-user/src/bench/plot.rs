//! The results as pictures, in one SVG file: cost against the number of rules on logarithmic axes, and bars
//! for the other tables.

mod bars;
mod lines;

use std::fmt::Write as _;

use super::{
    report::{Line, Report},
    scenario::{Group, Subject},
};

/// The picture's width in pixels.
const WIDTH: f64 = 780.0;

/// Colours of hooks: of the first whose name is the beginning of the subject's.
const COLOURS: [(&str, &str); 7] = [
    ("ours, clsact", "#2a9df4"),
    ("ours", "#0b6e4f"),
    ("nft set", "#e08e0b"),
    ("nft", "#c0392b"),
    ("tc", "#7f8c8d"),
    ("cls_bpf", "#8e44ad"),
    ("", "#333333"),
];

/// A part of the picture.
struct Panel {
    /// In pixels.
    height: f64,
    /// Elements of SVG, from the part's upper left corner on.
    body: String,
}

/// All of the report.
pub fn svg(report: &Report) -> String {
    let of = |group: Group| -> Vec<&Line> {
        let of_group = |line: &&Line| line.table == group.name() && line.result.is_some();
        report.lines.iter().filter(of_group).collect()
    };
    let unit = &report.about.unit;
    let mut panels = Vec::new();
    let count = of(Group::Count);
    match lines::panel(&count, unit) {
        Some(panel) => panels.push(panel),
        None => panels.extend(bars::panel("Cost by number of rules", &count, unit)),
    }
    for (group, title) in [
        (
            Group::Commit,
            "The table of the commit \u{201c}netfilter: Introduce egress hook\u{201d}",
        ),
        (Group::Rules, "Cost by ruleset"),
        (
            Group::Statements,
            "Cost of a rule that matches, by its statement",
        ),
    ] {
        panels.extend(bars::panel(title, &of(group), unit));
    }

    let height: f64 = panels.iter().map(|panel| panel.height).sum::<f64>() + 36.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"white\"/>\n"
    );
    let mut y = 0.0;
    for panel in &panels {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "<g transform=\"translate(0 {y:.0})\">\n{}</g>",
            panel.body
        );
        y += panel.height;
    }
    let _ = writeln!(
        text,
        "<text x=\"20\" y=\"{:.0}\" font-size=\"10\" fill=\"#666\">{}</text>\n</svg>",
        y + 20.0,
        escaped(&report.about.words())
    );
    text
}

/// What a line's hook adds, where it has a result.
fn added(line: &Line) -> Option<f64> {
    line.result.as_ref().map(|numbers| numbers.added)
}

fn colour(subject: &str) -> &'static str {
    let found = COLOURS.iter().find(|(name, _)| subject.starts_with(name));
    found.map_or("#333333", |(_, colour)| colour)
}

/// What a hook is called in the picture.
fn label(subject: &str) -> String {
    let ours = Subject::Ours.name();
    match subject.strip_prefix(ours) {
        Some(mode) => format!("egress{mode}"),
        None => subject.to_owned(),
    }
}

/// A title above a part.
fn heading(title: &str) -> String {
    format!(
        "<text x=\"20\" y=\"30\" font-size=\"16\">{}</text>\n",
        escaped(title)
    )
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Numbers, tests::about};

    pub fn line(table: &str, scenario: &str, subject: &str, added: f64) -> Line {
        Line {
            table: table.into(),
            scenario: scenario.into(),
            title: format!("{scenario} <1>"),
            subject: subject.into(),
            result: Some(Numbers {
                per_packet: 2000.0 + added,
                min: 0.0,
                max: 0.0,
                added,
                noise: 0.0,
                pps: 0.0,
                mbps: 0.0,
                packets: 1,
                dropped: 0,
                runs: None,
            }),
            skipped: None,
        }
    }

    #[test]
    fn each_table_is_drawn() {
        let mut lines = vec![line("baseline", "none", "nothing", 0.0)];
        for (scenario, added) in [("miss-1", 440.0), ("miss-10", 1700.0)] {
            lines.push(line("count", scenario, "nft", added));
            lines.push(line("count", scenario, "ours", 320.0));
        }
        lines.push(line("commit", "tc-drop", "tc", -40.0));
        lines.push(line("rules", "empty", "ours, clsact", 303.0));
        let text = svg(&Report::new(about(), lines));
        assert_eq!(text.matches("<polyline").count(), 2, "{text}");
        assert!(text.contains("egress, clsact"));
        assert!(text.contains("tc-drop &lt;1&gt;"));
        assert!(!text.contains("NaN") && text.ends_with("</svg>\n"));
    }

    #[test]
    fn without_results_there_is_still_a_picture() {
        assert!(svg(&Report::new(about(), Vec::new())).ends_with("</svg>\n"));
    }
}
