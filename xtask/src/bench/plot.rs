//! Cost against the number of rules, on logarithmic axes, as SVG.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::table;
use crate::setup::kernel::Version;

/// Scenarios by number of rules.
const POINTS: &[(f64, &str)] = &[
    (1.0, "miss-1"),
    (10.0, "miss-10"),
    (100.0, "miss-100"),
    (1_000.0, "miss-1000"),
    (10_000.0, "miss-10000"),
];

const COLOURS: [&str; 4] = ["#0b6e4f", "#2a9df4", "#c0392b", "#7f8c8d"];

// The plot within the picture, in pixels.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 560.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 360.0;

// The ends of the axes, as powers of ten.
const X_END: i32 = 4;
const Y_BEGIN: i32 = 2;
const Y_END: i32 = 7;

/// The picture.
pub fn svg(kernel: Version, runs: &[Value]) -> Result<String> {
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 420\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"720\" height=\"420\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"16\">Instructions added to a packet by rules that \
         do not match, Linux {}</text>\n\
         <text x=\"320\" y=\"405\" text-anchor=\"middle\">rules</text>\n",
        kernel.name()
    );
    // Writing to a string cannot fail.
    for power in 0..=X_END {
        let (x, label) = (x(10f64.powi(power)), number(power));
        let _ = writeln!(
            text,
            "<path d=\"M{x:.1} {TOP}V{BOTTOM}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"380\" text-anchor=\"middle\">{label}</text>"
        );
    }
    for power in Y_BEGIN..=Y_END {
        let (y, label) = (y(10f64.powi(power)), number(power));
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>\
             <text x=\"72\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            y + 4.0
        );
    }
    let columns = table::columns(runs)?;
    let mut used: Vec<f64> = Vec::new();
    for (column, colour) in columns.iter().zip(COLOURS) {
        let points: Vec<(f64, f64)> = POINTS
            .iter()
            .filter_map(|&(rules, scenario)| Some((x(rules), y(column.added(scenario)?))))
            .collect();
        let Some(&(end_x, end_y)) = points.last() else {
            continue;
        };
        let path: Vec<_> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"/>",
            path.join(" ")
        );
        for (x, y) in &points {
            let _ = writeln!(
                text,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>"
            );
        }
        // Labels of lines that end close to each other stand below each other.
        let mut label_y = end_y + 4.0;
        while used.iter().any(|other| (other - label_y).abs() < 15.0) {
            label_y -= 15.0;
        }
        used.push(label_y);
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{label_y:.1}\" fill=\"{colour}\">{}</text>",
            end_x + 10.0,
            column.title
        );
    }
    text.push_str("</svg>\n");
    Ok(text)
}

fn x(rules: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * rules.max(1.0).log10() / f64::from(X_END)
}

fn y(cost: f64) -> f64 {
    let lowest = 10f64.powi(Y_BEGIN);
    let part = (cost.max(lowest).log10() - f64::from(Y_BEGIN)) / f64::from(Y_END - Y_BEGIN);
    BOTTOM - (BOTTOM - TOP) * part
}

/// A power of ten with commas between the thousands.
fn number(power: i32) -> String {
    let mut text = String::from("1");
    for left in (0..power).rev() {
        text.push('0');
        if left % 3 == 0 && left > 0 {
            text.push(',');
        }
    }
    if power > 0 && power % 3 == 0 {
        text.insert(1, ',');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_ten() {
        let all: Vec<_> = (0..=7).map(number).collect();
        let expected = [
            "1",
            "10",
            "100",
            "1,000",
            "10,000",
            "100,000",
            "1,000,000",
            "10,000,000",
        ];
        assert_eq!(all, expected);
    }
}
