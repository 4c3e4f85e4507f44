//! Reads the Prometheus text format far enough to ask for single series.

use std::collections::{BTreeMap, BTreeSet};

use super::wait::fail;

/// One scrape of the admin listener's `/metrics`.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) text: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self {
            text: text.to_owned(),
            samples: lines.map(parse_sample).collect(),
        }
    }

    /// The sum of all series with this name that carry at least these labels: `name{label="value"}`.
    pub(crate) fn sum(&self, selector: &str) -> f64 {
        self.select(selector).map(|sample| sample.value).sum()
    }

    /// The series with this name that carry at least these labels.
    pub(crate) fn select(&self, selector: &str) -> impl Iterator<Item = &Sample> {
        let (name, wanted) = parse_series(selector);
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && wanted
                    .iter()
                    .all(|(label, value)| sample.labels.get(label) == Some(value))
        })
    }

    /// The names after `# TYPE`, in the order of the text, with their types.
    pub(crate) fn families(&self) -> Vec<(&str, &str)> {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect()
    }

    /// The names after `# HELP`.
    pub(crate) fn documented(&self) -> BTreeSet<&str> {
        let names = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
        names.map(|(name, _)| name).collect()
    }

    /// The names of all series.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.samples
            .iter()
            .map(|sample| sample.name.as_str())
            .collect()
    }
}

fn parse_sample(line: &str) -> Sample {
    let (series, value) = match line.rfind('}') {
        Some(end) => line.split_at(end + 1),
        None => line.split_once(' ').expect("a sample has a value"),
    };
    let value = value
        .split_whitespace()
        .next()
        .expect("a sample has a value");
    let (name, labels) = parse_series(series);
    Sample {
        name,
        labels,
        value: value.parse().expect("a sample's value is a number"),
    }
}

fn parse_series(series: &str) -> (String, BTreeMap<String, String>) {
    let Some((name, labels)) = series.split_once('{') else {
        return (series.to_owned(), BTreeMap::new());
    };
    let mut parsed = BTreeMap::new();
    let mut rest = labels.strip_suffix('}').expect("labels end in a brace");
    while let Some((label, after)) = rest.split_once("=\"") {
        let (value, after) = split_quoted(after);
        parsed.insert(label.trim_start_matches([',', ' ']).to_owned(), value);
        rest = after;
    }
    (name.to_owned(), parsed)
}

/// The text up to the closing quote with escapes resolved, and what follows the quote.
fn split_quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, text.split_at(at + 1).1),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            plain => value.push(plain),
        }
    }
    fail(&format!("a label value without a closing quote: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_some_of_their_labels() {
        let metrics = Metrics::parse(
            "# TYPE a counter\na{x=\"1\",y=\"a,b\"} 2\na{x=\"2\",y=\"q\\\"\"} 3\nb 4.5\n",
        );

        assert!((metrics.sum("a") - 5.0).abs() < f64::EPSILON);
        assert!((metrics.sum("a{x=\"1\"}") - 2.0).abs() < f64::EPSILON);
        assert!((metrics.sum("b") - 4.5).abs() < f64::EPSILON);
        assert!((metrics.sum("a{y=\"a,b\"}") - 2.0).abs() < f64::EPSILON);
        assert_eq!(metrics.families(), [("a", "counter")]);
    }
}
