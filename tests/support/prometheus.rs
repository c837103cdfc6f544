//! A strict reader of Prometheus' text format: what it takes, every scraper does.

#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;

/// What was read: kinds by name, and values by name with labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    pub kinds: BTreeMap<String, String>,
    pub values: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads all of it; fails the test at the first line that is not as it must be.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has an end");
        let mut metrics = Self::default();
        let mut family = String::new();
        let mut helped = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a name and a help");
                assert!(!help.is_empty() && !help.contains('\\'), "{line}");
                assert!(!metrics.kinds.contains_key(name), "{name} comes twice");
                helped = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a kind");
                assert_eq!(name, helped, "HELP and TYPE stand together");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                family = name.to_owned();
                metrics.kinds.insert(family.clone(), kind.to_owned());
            } else {
                metrics.sample(line, &family);
            }
        }
        for (name, kind) in &metrics.kinds {
            let is_of = |key: &&String| key.as_str() == name || key.starts_with(&format!("{name}{{"));
            if kind == "histogram" {
                metrics.check_histogram(name);
            } else {
                assert!(metrics.values.keys().any(|key| is_of(&key)), "{name} has no value");
            }
        }
        metrics
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (key, value) = line.rsplit_once(' ').expect("a name and a value");
        let (name, labels) = key.split_once('{').unwrap_or((key, ""));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        let is_histogram = self.kinds.get(family).is_some_and(|kind| kind == "histogram");
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
        assert!(if is_histogram {
            ["_bucket", "_sum", "_count"].contains(&suffix)
        } else {
            suffix.is_empty()
        });
        if !labels.is_empty() {
            let (label, text) =
                labels.strip_suffix("\"}").and_then(|all| all.split_once("=\"")).expect("one label");
            assert!(["transport", "reason", "le"].contains(&label), "{line}");
            assert!(
                text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.+".contains(&byte)),
                "{line}"
            );
        }
        let value: f64 = value.parse().expect("a number");
        assert!(value >= 0.0 && value.is_finite(), "{line}");
        assert_eq!(self.values.insert(key.to_owned(), value), None, "{key} comes twice");
    }

    fn check_histogram(&self, name: &str) {
        let prefix = format!("{name}_bucket{{le=\"");
        let mut buckets: Vec<(f64, f64)> = self
            .values
            .iter()
            .filter_map(|(key, &count)| Some((key.strip_prefix(&prefix)?.strip_suffix("\"}")?, count)))
            .map(|(bound, count)| (bound.replace("+Inf", "inf").parse().expect("a bound"), count))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}: {buckets:?}");
        let (bound, count) = *buckets.last().expect("buckets");
        assert!(bound.is_infinite() && count == self.get(&format!("{name}_count")), "{name}");
        assert!(self.values.contains_key(&format!("{name}_sum")));
    }

    pub fn get(&self, key: &str) -> f64 {
        *self.values.get(key).unwrap_or_else(|| panic!("{key} is not there"))
    }

    /// What has moved since, and by how much; what is timed is left out.
    pub fn moved_since(&self, before: &Self) -> BTreeMap<String, f64> {
        let is_timed = |key: &str| key.contains("_seconds");
        let moved = self.values.iter().map(|(key, value)| (key.clone(), value - before.get(key)));
        moved.filter(|(key, by)| *by != 0.0 && !is_timed(key)).collect()
    }
}
