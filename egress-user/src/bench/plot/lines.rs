//! Cost against the number of rules.

use std::fmt::Write as _;

use super::{Panel, added, colour, escaped, heading, label};
use crate::bench::{
    report::{Line, grouped},
    scenario::rules_in,
};

// The plot within the panel, in pixels.
const LEFT: f64 = 95.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 350.0;
const HEIGHT: f64 = 410.0;

/// Pixels between the names of lines that end close to each other.
const APART: f64 = 16.0;

/// The axes: powers of ten at their ends.
struct Axes {
    x: (i32, i32),
    y: (i32, i32),
}

/// A line for each hook; nothing where there are not two numbers of rules.
pub fn panel(lines: &[&Line], unit: &str) -> Option<Panel> {
    let mut hooks: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for line in lines {
        let (Some(rules), Some(added)) = (rules_in(&line.scenario), added(line)) else {
            continue;
        };
        // The least that an axis of powers of ten shows.
        let point = (f64::from(rules), added.max(1.0));
        match hooks.iter_mut().find(|(name, _)| *name == line.subject) {
            Some((_, points)) => points.push(point),
            None => hooks.push((&line.subject, vec![point])),
        }
    }
    let points: Vec<_> = hooks.iter().flat_map(|(_, points)| points).collect();
    let axes = Axes {
        x: span(points.iter().map(|(x, _)| *x))?,
        y: span(points.iter().map(|(_, y)| *y))?,
    };
    if points.iter().all(|(x, _)| *x == points[0].0) {
        return None;
    }
    let mut body = heading(&format!(
        "{} added to a packet by rules that do not match",
        if unit == "ns" {
            "Nanoseconds"
        } else {
            "Instructions"
        }
    ));
    axes.draw(&mut body);
    let mut ends = Vec::new();
    for (name, points) in &mut hooks {
        points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let colour = colour(name);
        let path: Vec<_> = points
            .iter()
            .map(|&(x, y)| format!("{:.1},{:.1}", axes.x(x), axes.y(y)))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"/>",
            path.join(" ")
        );
        for &(x, y) in points.iter() {
            let _ = writeln!(
                body,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"><title>{}: {}</title>\
                 </circle>",
                axes.x(x),
                axes.y(y),
                escaped(&label(name)),
                grouped(y)
            );
        }
        if let Some(&(x, y)) = points.last() {
            ends.push((
                axes.x(x),
                axes.y(y),
                format!("{} +{}", label(name), grouped(y)),
                colour,
            ));
        }
    }
    // From the lowest up, each name stands above the one before.
    ends.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
    let mut above = f64::MAX;
    for (x, y, name, colour) in ends {
        above = (y + 4.0).min(above - APART);
        let _ = writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{above:.1}\" fill=\"{colour}\">{}</text>",
            x + 10.0,
            escaped(&name)
        );
    }
    Some(Panel {
        height: HEIGHT,
        body,
    })
}

/// The powers of ten around values.
fn span(values: impl Iterator<Item = f64> + Clone) -> Option<(i32, i32)> {
    let least = values.clone().min_by(f64::total_cmp)?;
    let most = values.max_by(f64::total_cmp)?;
    // Casts of floats stay within the range of the integer.
    let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    Some((first, last.max(first + 1)))
}

impl Axes {
    fn x(&self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * part(value, self.x)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * part(value, self.y)
    }

    fn draw(&self, body: &mut String) {
        for power in self.x.0..=self.x.1 {
            let (x, label) = (self.x(10f64.powi(power)), grouped(10f64.powi(power)));
            let _ = writeln!(
                body,
                "<path d=\"M{x:.1} {TOP}V{BOTTOM}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                BOTTOM + 20.0
            );
        }
        for power in self.y.0..=self.y.1 {
            let (y, label) = (self.y(10f64.powi(power)), grouped(10f64.powi(power)));
            let _ = writeln!(
                body,
                "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        let _ = writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">rules</text>",
            (LEFT + RIGHT) / 2.0,
            BOTTOM + 42.0
        );
    }
}

/// Where a value is between two powers of ten, from 0 to 1.
fn part(value: f64, (first, last): (i32, i32)) -> f64 {
    (value.log10() - f64::from(first)) / f64::from(last - first)
}
