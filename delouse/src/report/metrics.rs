//! Metrics in the text format of Prometheus, version 0.0.4, which all of its descendants read.
//!
//! Crates for metrics write OpenMetrics, in which counters have another name than their samples.

use std::fmt::{self, Write as _};

/// What a family of samples is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Gauge,
    Counter,
}

/// Samples with one name, and different labels.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricKind,
    samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Family {
    pub(crate) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricKind::Gauge, samples: Vec::new() }
    }

    pub(crate) fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricKind::Counter, samples: Vec::new() }
    }

    /// Adds a sample.
    pub(crate) fn with(mut self, labels: &[(&'static str, &str)], value: f64) -> Self {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push((labels, value));
        self
    }

    /// Adds a sample, if there is a value.
    pub(crate) fn with_some(self, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.with(&[], value),
            None => self,
        }
    }
}

/// The families that have samples.
pub(crate) fn text(families: &[Family]) -> String {
    let mut out = String::new();
    for Family { name, help, kind, samples } in families.iter().filter(|family| !family.samples.is_empty()) {
        let kind = match kind {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
        };
        let _infallible = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let _infallible = writeln!(out, "{name}{} {value}", Labels(labels));
        }
    }
    out
}

struct Labels<'l>(&'l [(&'static str, String)]);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name}=\"", if at == 0 { '{' } else { ',' })?;
            for letter in value.chars() {
                match letter {
                    '\\' | '"' => write!(f, "\\{letter}")?,
                    '\n' => f.write_str("\\n")?,
                    letter => f.write_char(letter)?,
                }
            }
            f.write_char('"')?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_char('}') }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_their_samples() {
        let families = [
            Family::gauge("up", "Whether it runs.").with_some(Some(1.0)),
            Family::counter("busy_seconds_total", "Time.")
                .with(&[("runtime", "a \"b\"\\\n"), ("worker", "0")], 0.25)
                .with(&[("runtime", ""), ("worker", "1")], 12_345_678_901.0),
            Family::gauge("nothing", "Left out.").with_some(None),
        ];
        assert_eq!(
            text(&families),
            "# HELP up Whether it runs.\n# TYPE up gauge\nup 1\n\
             # HELP busy_seconds_total Time.\n# TYPE busy_seconds_total counter\n\
             busy_seconds_total{runtime=\"a \\\"b\\\"\\\\\\n\",worker=\"0\"} 0.25\n\
             busy_seconds_total{runtime=\"\",worker=\"1\"} 12345678901\n"
        );
    }
}
