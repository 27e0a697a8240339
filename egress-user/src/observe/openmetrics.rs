//! Families of numbers as OpenMetrics text.

use std::fmt;

use anyhow::{Context as _, Result};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};

/// The media type of what [`text`] makes.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of a number.
pub type Labels = Vec<(&'static str, String)>;

/// Numbers of one name.
#[derive(Debug, Clone)]
pub struct Family {
    /// Without `_total`, which counters are given.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// Labels and numbers.
    pub rows: Vec<(Labels, Number)>,
}

/// Kinds of families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It grows, or begins again at 0.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A number.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// A whole one.
    Count(u64),
    /// Seconds and their like.
    Real(f64),
}

/// All families that have numbers, in order.
///
/// # Errors
///
/// None but those of formatting.
pub fn text(families: &[Family]) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All(families.to_vec())));
    let mut text = String::new();
    encode(&mut text, &registry).context("writing the metrics")?;
    Ok(text)
}

#[derive(Debug)]
struct All(Vec<Family>);

impl Collector for All {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.0.iter().filter(|family| !family.rows.is_empty()) {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, number) in &family.rows {
                let mut row = metric.encode_family(labels)?;
                match (family.kind, number) {
                    (Kind::Counter, Number::Count(n)) => {
                        row.encode_counter::<NoLabelSet, _, u64>(n, None)?;
                    }
                    (Kind::Counter, Number::Real(n)) => {
                        row.encode_counter::<NoLabelSet, _, f64>(n, None)?;
                    }
                    // Above 2^63 of a gauge are none that we have.
                    (Kind::Gauge, Number::Count(n)) => {
                        row.encode_gauge(&i64::try_from(*n).unwrap_or(i64::MAX))?;
                    }
                    (Kind::Gauge, Number::Real(n)) => row.encode_gauge(n)?,
                }
            }
        }
        Ok(())
    }
}
