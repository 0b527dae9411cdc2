//! A reader of `OpenMetrics` text that takes no nonsense.

use std::collections::BTreeMap;

/// A family of metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Family {
    /// `counter`, `gauge`, `histogram` or `info`.
    pub(crate) kind: String,
    pub(crate) help: String,
    unit: String,
    pub(crate) samples: Vec<Sample>,
}

/// One value.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// With its suffix, such as `_total`.
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// A scrape, by the names of its families.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrape(pub(crate) BTreeMap<String, Family>);

impl Scrape {
    /// Reads a scrape; an error names the line and what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?;
        let mut scrape = Self::default();
        let mut last = None;
        for line in body.lines() {
            scrape
                .line(line, &mut last)
                .map_err(|wrong| format!("{line:?}: {wrong}"))?;
        }
        for (name, family) in &scrape.0 {
            family
                .check(name)
                .map_err(|wrong| format!("{name}: {wrong}"))?;
        }
        Ok(scrape)
    }

    fn line(&mut self, line: &str, last: &mut Option<String>) -> Result<(), String> {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (what, name) = (words.next(), words.next().ok_or("no name")?);
            let rest = words.next().unwrap_or_default().to_owned();
            if last.as_deref() != Some(name) {
                let is_new = self.0.insert(name.to_owned(), Family::default()).is_none();
                is_new.then_some(()).ok_or("its family is there already")?;
                *last = Some(name.to_owned());
            }
            let family = self.0.get_mut(name).expect("it was put there");
            match what {
                Some("HELP") => family.help = rest,
                Some("TYPE") => family.kind = rest,
                Some("UNIT") => family.unit = rest,
                _ => return Err("neither HELP, TYPE nor UNIT".to_owned()),
            }
            return Ok(());
        }
        let name = last.as_ref().ok_or("no family before it")?;
        let family = self.0.get_mut(name).expect("it was put there");
        family.samples.push(Sample::parse(line)?);
        Ok(())
    }

    /// The value of a sample with exactly these labels.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut samples = self.0.values().flat_map(|family| &family.samples);
        let sample = samples.find(|sample| {
            sample.name == name
                && sample.labels.len() == labels.len()
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        });
        sample.map(|sample| sample.value)
    }
}

impl Sample {
    fn parse(line: &str) -> Result<Self, String> {
        let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').ok_or("no }")?),
            None => (series, ""),
        };
        let is_name = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        is_name(name).then_some(()).ok_or("a bad name")?;
        let mut found = BTreeMap::new();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').ok_or("no = in a label")?;
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            let value = value.ok_or("a label without quotes")?;
            is_name(key).then_some(()).ok_or("a bad label")?;
            let doubled = found.insert(key.to_owned(), value.to_owned());
            doubled.is_none().then_some(()).ok_or("a label twice")?;
        }
        Ok(Self {
            name: name.to_owned(),
            labels: found,
            value: value.parse().map_err(|_| "no number")?,
        })
    }
}

impl Family {
    fn check(&self, name: &str) -> Result<(), String> {
        let suffixes: &[&str] = match self.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            other => return Err(format!("{other:?} is no type")),
        };
        if self.help.is_empty() {
            return Err("no HELP".to_owned());
        }
        if !self.unit.is_empty() && !name.ends_with(&format!("_{}", self.unit)) {
            return Err("its name does not end with its unit".to_owned());
        }
        for sample in &self.samples {
            let suffix = sample.name.strip_prefix(name);
            if !suffix.is_some_and(|suffix| suffixes.contains(&suffix)) {
                return Err(format!("{} is not of its type", sample.name));
            }
        }
        self.check_buckets()
    }

    /// Buckets only grow, and the last one holds all.
    fn check_buckets(&self) -> Result<(), String> {
        let mut by_labels: BTreeMap<_, Vec<f64>> = BTreeMap::new();
        for sample in &self.samples {
            let mut labels = sample.labels.clone();
            let le = labels.remove("le");
            let values = by_labels.entry(labels).or_default();
            if le.is_some() {
                values.push(sample.value);
            }
        }
        for (labels, values) in by_labels {
            let name = |suffix: &str| {
                let mut samples = self.samples.iter();
                samples.find(|s| s.name.ends_with(suffix) && s.labels == labels)
            };
            let count = name("_count").map(|sample| sample.value);
            if self.kind == "histogram" && values.last().copied() != count {
                return Err(format!("the last bucket of {labels:?} is not its count"));
            }
            if !values.is_sorted() {
                return Err(format!("the buckets of {labels:?} shrink"));
            }
        }
        Ok(())
    }
}

#[test]
fn the_reader_finds_what_is_wrong() {
    let right = "# HELP a A.\n# TYPE a counter\na_total{x=\"1\"} 2\n# EOF\n";
    let scrape = Scrape::parse(right).unwrap();
    assert_eq!(scrape.value("a_total", &[("x", "1")]), Some(2.0));
    for wrong in [
        "# HELP a A.\n# TYPE a counter\na 2\n# EOF\n",
        "# HELP a A.\n# TYPE a counter\na_total 2\n",
        "# TYPE a gauge\na 2\n# EOF\n",
        "# HELP a A.\n# TYPE a gauge\na{x=1} 2\n# EOF\n",
        "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 2\na_count 1\na_sum 1\n# EOF\n",
        "a 2\n# EOF\n",
    ] {
        assert!(Scrape::parse(wrong).is_err(), "{wrong}");
    }
}
