//! A bar for each line of a table, by scenario.

use std::fmt::Write as _;

use super::{Panel, added, colour, escaped, heading, label};
use crate::bench::report::{Line, grouped};

// Columns, in pixels: names, bars, and what stands behind them.
const LEFT: f64 = 290.0;
const RIGHT: f64 = 640.0;

/// Height of a bar, of what is between scenarios, of the heading.
const BAR: f64 = 17.0;
const GAP: f64 = 9.0;
const TOP: f64 = 48.0;

/// Beyond this relation of the largest to the smallest value, the axis is logarithmic.
const FAR: f64 = 40.0;

/// Where values are.
enum Axis {
    Linear { least: f64, most: f64 },
    Logarithmic { first: f64, last: f64 },
}

/// The bars; nothing where nothing was measured.
pub fn panel(title: &str, lines: &[&Line], unit: &str) -> Option<Panel> {
    let axis = Axis::of(lines)?;
    let scale = match axis {
        Axis::Linear { .. } => "",
        Axis::Logarithmic { .. } => ", logarithmic",
    };
    let mut body = heading(&format!("{title} (added {unit}{scale})"));
    let mut y = TOP;
    let mut scenario = "";
    for line in lines {
        let Some(value) = added(line) else { continue };
        if line.scenario != scenario {
            y += if scenario.is_empty() { 0.0 } else { GAP };
            scenario = &line.scenario;
            // Writing to a string cannot fail.
            let _ = writeln!(
                body,
                "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 12.0,
                y + BAR - 4.5,
                escaped(&line.title)
            );
        }
        let (from, to) = (axis.x(0.0), axis.x(value));
        let _ = writeln!(
            body,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\">{}{} {}</text>",
            from.min(to),
            y + 1.0,
            (to - from).abs().max(1.0),
            BAR - 2.0,
            colour(&line.subject),
            from.max(to) + 6.0,
            y + BAR - 4.5,
            if value < -0.5 { "-" } else { "+" },
            grouped(value.abs()),
            escaped(&label(&line.subject)),
        );
        y += BAR;
    }
    Some(Panel {
        height: y + 14.0,
        body,
    })
}

impl Axis {
    fn of(lines: &[&Line]) -> Option<Self> {
        let values: Vec<f64> = lines.iter().filter_map(|line| added(line)).collect();
        let least = values.iter().copied().min_by(f64::total_cmp)?;
        let most = values.iter().copied().max_by(f64::total_cmp)?.max(1.0);
        Some(if least > 0.0 && most / least > FAR {
            Self::Logarithmic {
                first: least.max(1.0).log10().floor(),
                last: most.log10(),
            }
        } else {
            Self::Linear {
                least: least.min(0.0),
                most,
            }
        })
    }

    fn x(&self, value: f64) -> f64 {
        let part = match *self {
            Self::Linear { least, most } => (value - least) / (most - least),
            Self::Logarithmic { first, last } => {
                let least = 10f64.powf(first);
                (value.max(least).log10() - first) / (last - first).max(0.1)
            }
        };
        LEFT + (RIGHT - LEFT) * part
    }
}
